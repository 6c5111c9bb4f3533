// SPDX-License-Identifier: Apache-2.0
// `selfmigrate landing-image -o FILE [--module PATH]`: the initramfs for the target, made from the running
// source.
#pragma once

namespace smig {

// `argv[0]` is the subcommand's name ("landing-image").  The process's exit code: 0 written, 1 failed, 2
// usage.
int landing_image_command(int argc, const char* const* argv);

}  // namespace smig
