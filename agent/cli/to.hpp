// SPDX-License-Identifier: Apache-2.0
// `selfmigrate to HOST[:PORT]`: moves this guest.
#pragma once

namespace smig {

// `argv[0]` is the subcommand's name.  The process's exit code: 0 moved, 1 refused or failed (the guest is
// here, unharmed), 2 usage.
int to_command(int argc, const char* const* argv);

}  // namespace smig
