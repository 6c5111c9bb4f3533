// SPDX-License-Identifier: Apache-2.0
// The list of modules inside a landing image: written by landing-image, read by the landing environment.
// Pure.
//
//   selfmigrate-modules 1
//   kernel RELEASE
//   module NAME FILE plain|compressed         in the order in which they can be loaded
//   needs NAME NAME...
//   alias PATTERN                             both belong to the module above them
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.hpp"

namespace smig {

struct ListedModule {
    std::string name;
    std::string file;         // in kModuleFolder
    bool compressed = false;  // the kernel must decompress it
    std::vector<std::string> needs;
    std::vector<std::string> aliases;  // none: a library, loaded only for another module
};

struct ModuleList {
    std::string release;
    std::vector<ListedModule> modules;
};

inline constexpr const char* kModuleFolder = "modules";  // in the image's root
inline constexpr const char* kModuleListFile = "modules/list";
inline constexpr const char* kOwnModuleFile = "modules/selfmigrate.ko";

std::string format_module_list(const ModuleList& list);
Result<ModuleList> parse_module_list(std::string_view text);

// Which modules to load for these devices (texts of sysfs "modalias" files) and these names, in order, with
// all they need.
std::vector<const ListedModule*> choose_modules(const ModuleList& list,
                                                const std::set<std::string>& device_aliases,
                                                const std::set<std::string>& names);

}  // namespace smig
