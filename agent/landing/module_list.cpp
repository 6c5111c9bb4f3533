// SPDX-License-Identifier: Apache-2.0
#include "agent/landing/module_list.hpp"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

constexpr const char* kFirstLine = "selfmigrate-modules 1";

bool drives_one_of(const ListedModule& module, const std::set<std::string>& device_aliases) {
    return std::any_of(module.aliases.begin(), module.aliases.end(), [&](const std::string& pattern) {
        return std::any_of(device_aliases.begin(), device_aliases.end(), [&](const std::string& device) {
            return ::fnmatch(pattern.c_str(), device.c_str(), 0) == 0;
        });
    });
}

}  // namespace

std::string format_module_list(const ModuleList& list) {
    std::string text = fmt::format("{}\nkernel {}\n", kFirstLine, list.release);
    for (const ListedModule& module : list.modules) {
        text += fmt::format("module {} {} {}\n", module.name, module.file,
                            module.compressed ? "compressed" : "plain");
        if (!module.needs.empty()) text += fmt::format("needs {}\n", fmt::join(module.needs, " "));
        for (const std::string& alias : module.aliases) text += fmt::format("alias {}\n", alias);
    }
    return text;
}

Result<ModuleList> parse_module_list(std::string_view text) {
    const std::vector<std::string> lines = sysfs::split_lines(text);
    if (lines.empty() || lines.front() != kFirstLine) {
        return Error{Remedy::refused, "the image's list of modules is missing or of another version"};
    }
    ModuleList list;
    for (std::size_t i = 1; i < lines.size(); ++i) {
        std::vector<std::string> words = sysfs::split_words(lines[i]);
        const bool after_module = !list.modules.empty();
        if (words.size() == 2 && words[0] == "kernel") {
            list.release = words[1];
        } else if (words.size() == 4 && words[0] == "module") {
            list.modules.push_back({words[1], words[2], words[3] == "compressed", {}, {}});
        } else if (words.size() >= 2 && words[0] == "needs" && after_module) {
            list.modules.back().needs.assign(words.begin() + 1, words.end());
        } else if (words.size() == 2 && words[0] == "alias" && after_module) {
            list.modules.back().aliases.push_back(words[1]);
        } else {
            return Error{Remedy::refused,
                         fmt::format("the image's list of modules has a wrong line: {}", lines[i])};
        }
    }
    return list;
}

std::vector<const ListedModule*> choose_modules(const ModuleList& list,
                                                const std::set<std::string>& device_aliases,
                                                const std::set<std::string>& names) {
    std::set<std::string> wanted = names;
    std::vector<const ListedModule*> chosen;
    // From the end: what a module needs stands before it.
    for (auto module = list.modules.rbegin(); module != list.modules.rend(); ++module) {
        if (!wanted.contains(module->name) && !drives_one_of(*module, device_aliases)) continue;
        wanted.insert(module->needs.begin(), module->needs.end());
        chosen.push_back(&*module);
    }
    std::reverse(chosen.begin(), chosen.end());
    return chosen;
}

}  // namespace smig
