// SPDX-License-Identifier: Apache-2.0
// The modules of one kernel: where they are, what they need, which devices they drive.  Pure: works on the
// texts of modules.dep, modules.builtin and modules.alias.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.hpp"

namespace smig {

// "kernel/drivers/net/virtio_net.ko.xz" and "virtio-net" are both the module "virtio_net".
std::string module_name(std::string_view path_or_name);

class ModuleTree {
public:
    // A wrong line in these texts is skipped; a module without its dependencies shows up in load_order().
    ModuleTree(std::string_view dependencies, std::string_view builtin, std::string_view aliases);

    [[nodiscard]] bool has(const std::string& name) const { return modules_.contains(name); }
    [[nodiscard]] bool is_builtin(const std::string& name) const { return builtin_.contains(name); }
    // Path below the tree's root; the module must be there.
    [[nodiscard]] const std::string& path(const std::string& name) const { return modules_.at(name).path; }
    // Names of the modules it needs loaded before it.
    [[nodiscard]] const std::vector<std::string>& needs(const std::string& name) const {
        return modules_.at(name).needs;
    }
    // Patterns of the devices it drives; empty for a library.
    [[nodiscard]] std::vector<std::string> aliases(const std::string& name) const;

    // The modules of `wanted` that the tree has, with everything they need, each after what it needs;
    // otherwise by name, so that the same set gives the same order.  Built-in ones are left out.  Error
    // (refused): a dependency is not in the tree, or in a circle.
    [[nodiscard]] Result<std::vector<std::string>> load_order(const std::set<std::string>& wanted) const;

private:
    struct Module {
        std::string path;
        std::vector<std::string> needs;
    };
    std::map<std::string, Module> modules_;
    std::set<std::string> builtin_;
    std::multimap<std::string, std::string> aliases_;
};

}  // namespace smig
