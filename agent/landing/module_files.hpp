// SPDX-License-Identifier: Apache-2.0
// Files of one kernel's module tree: reading, decompressing, finding the project's own module.
#pragma once

#include <string>
#include <string_view>

#include "agent/base/result.hpp"

namespace smig {

// "/lib/modules/RELEASE".
std::string module_tree_of(const std::string& release);

bool is_compressed(std::string_view path);

// Whether the kernel `release` can load a compressed module by itself; false when nothing tells.
bool kernel_decompresses(const std::string& release);

// The module's ELF bytes, decompressed by xz, zstd or gzip where the name says so.  Error (refused):
// unreadable, or the program is not installed.
Result<std::string> read_module(const std::string& path);

// The kernel release a module was built for (vermagic); empty when it does not say.
std::string release_of_module(std::string_view elf);

// Path of selfmigrate.ko for `release`: `named` if not empty, otherwise where a package or `make install`
// puts it. Error (refused): it is not there, or built for another kernel; the text says what to do.
Result<std::string> find_own_module(const std::string& release, const std::string& tree,
                                    const std::string& named);

}  // namespace smig
