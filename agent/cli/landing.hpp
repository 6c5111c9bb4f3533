// SPDX-License-Identifier: Apache-2.0
// `selfmigrate landing`, and what the agent does as PID 1 of the landing environment.
#pragma once

namespace smig {

// True when this process is the /init of a landing environment (PID 1); main() then calls landing_command()
// first of all.
bool started_as_init(int argc, const char* const* argv);

// `argv[0]` is the subcommand's name ("landing") or "/init".  Mounts proc, sys and devtmpfs where they are
// not, loads the modules of the image, brings up lo and the NICs of the kernel command line, runs `receive`
// as a child and starts it again when it ends.  As PID 1 it never returns.  Otherwise the process's exit
// code: 1 failed, 2 usage.
int landing_command(int argc, const char* const* argv);

}  // namespace smig
