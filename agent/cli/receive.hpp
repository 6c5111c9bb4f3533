// SPDX-License-Identifier: Apache-2.0
// `selfmigrate receive --listen ADDR[:PORT] --insecure`: takes a guest, in the landing environment.
#pragma once

namespace smig {

// `argv[0]` is the subcommand's name.  The process's exit code: 1 failed or refused, 2 usage.
int receive_command(int argc, const char* const* argv);

}  // namespace smig
