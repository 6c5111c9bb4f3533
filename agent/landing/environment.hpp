// SPDX-License-Identifier: Apache-2.0
// Makes an empty machine one that can receive a guest: kernel file systems, drivers, selfmigrate.ko, network.
//
// Every step says what it did in one line through `say` and goes on after a failure: a landing environment
// that lacks something refuses a guest by name, one that stopped tells nobody anything.
#pragma once

#include <functional>
#include <string>

#include "agent/landing/boot_options.hpp"

namespace smig {

using Say = std::function<void(const std::string& line)>;

// proc, sysfs and devtmpfs where they are not mounted yet.
void mount_kernel_filesystems(const Say& say);

// Messages of warnings and worse reach the console, so that a panic can be read there.
void show_kernel_warnings();

// Huge pages would make the kernel keep tens of MiB free for them, which the guest that lands here needs.
void keep_no_huge_pages();

// Loads the modules of the image in /modules that this machine has devices for, then selfmigrate.ko, and
// frees the memory of their files.  Without /modules (not a landing image) it does nothing.
void load_image_modules(const Say& say);

// lo, then every NIC of the options; waits for each up to `wait_ms`.  False when one could not be set up.
bool bring_up_network(const BootOptions& options, unsigned wait_ms, const Say& say);

// Until the kernel has measured the TSC's rate well (about two seconds after its start), at most `wait_ms`:
// the first measure is off by up to 0.1 %, more than two equal machines may differ.
void await_clock(unsigned wait_ms);

}  // namespace smig
