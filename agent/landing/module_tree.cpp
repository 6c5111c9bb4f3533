// SPDX-License-Identifier: Apache-2.0
#include "agent/landing/module_tree.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "agent/machine/sysfs.hpp"

namespace smig {

std::string module_name(std::string_view path_or_name) {
    path_or_name.remove_prefix(path_or_name.rfind('/') + 1);
    std::string name(path_or_name.substr(0, path_or_name.find(".ko")));
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

ModuleTree::ModuleTree(std::string_view dependencies, std::string_view builtin, std::string_view aliases) {
    for (const std::string& line : sysfs::split_lines(dependencies)) {
        // path: path path...
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        Module module{line.substr(0, colon), {}};
        for (const std::string& need : sysfs::split_words(line.substr(colon + 1)))
            module.needs.push_back(module_name(need));
        const std::string name = module_name(module.path);
        modules_.insert_or_assign(name, std::move(module));
    }
    for (const std::string& line : sysfs::split_lines(builtin)) builtin_.insert(module_name(line));
    for (const std::string& line : sysfs::split_lines(aliases)) {
        const std::vector<std::string> words = sysfs::split_words(line);
        if (words.size() == 3 && words[0] == "alias") aliases_.emplace(module_name(words[2]), words[1]);
    }
}

std::vector<std::string> ModuleTree::aliases(const std::string& name) const {
    std::vector<std::string> patterns;
    const auto [begin, end] = aliases_.equal_range(name);
    for (auto alias = begin; alias != end; ++alias) patterns.push_back(alias->second);
    std::sort(patterns.begin(), patterns.end());
    return patterns;
}

Result<std::vector<std::string>> ModuleTree::load_order(const std::set<std::string>& wanted) const {
    std::vector<std::string> order;
    std::set<std::string> done;
    std::set<std::string> open;  // on the way down to here: meeting one again is a circle
    std::string problem;
    const std::function<void(const std::string&)> visit = [&](const std::string& name) {
        if (!problem.empty() || done.contains(name)) return;
        if (!open.insert(name).second) {
            problem = fmt::format("module {} needs itself", name);
            return;
        }
        std::vector<std::string> needs = modules_.at(name).needs;
        std::sort(needs.begin(), needs.end());
        for (const std::string& need : needs) {
            if (modules_.contains(need)) {
                visit(need);
            } else if (!builtin_.contains(need)) {
                problem = fmt::format("module {} needs {}, which is not installed", name, need);
            }
        }
        open.erase(name);
        done.insert(name);
        order.push_back(name);
    };
    for (const std::string& name : wanted) {
        if (modules_.contains(name) && !builtin_.contains(name)) visit(name);
    }
    if (!problem.empty()) return Error{Remedy::refused, problem};
    return order;
}

}  // namespace smig
