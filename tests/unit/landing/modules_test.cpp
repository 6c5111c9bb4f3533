// SPDX-License-Identifier: Apache-2.0
// Which modules go into an image, in which order they load, which a machine needs.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "agent/landing/module_files.hpp"
#include "agent/landing/module_list.hpp"
#include "agent/landing/module_tree.hpp"

using namespace smig;

namespace {

constexpr const char* kDependencies =
    "kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz "
    "kernel/drivers/net/net_failover.ko.xz "
    "kernel/drivers/virtio/virtio.ko.xz\n"
    "kernel/net/core/failover.ko.xz:\n"
    "kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz\n"
    "kernel/drivers/virtio/virtio.ko.xz:\n"
    "kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio.ko.xz\n"
    "kernel/drivers/block/xen-blkfront.ko.xz:\n";
constexpr const char* kAliases =
    "# comment\n"
    "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n"
    "alias virtio:d00000001v* virtio_net\n"
    "alias xen:vbd xen_blkfront\n";

ModuleTree tree() {
    return {kDependencies, "kernel/drivers/char/virtio_console.ko\n", kAliases};
}

std::ptrdiff_t place(const std::vector<std::string>& order, const char* name) {
    return std::find(order.begin(), order.end(), name) - order.begin();
}

ModuleList image_list() {
    ModuleList list{"6.1.0", {}};
    const ModuleTree modules = tree();
    const auto order = modules.load_order({"virtio_net", "virtio_pci", "xen_blkfront"});
    REQUIRE(order.ok());
    for (const std::string& name : order.value()) {
        list.modules.push_back(
            {name, name + ".ko", name == "virtio", modules.needs(name), modules.aliases(name)});
    }
    return list;
}

std::vector<std::string> names_of(const std::vector<const ListedModule*>& modules) {
    std::vector<std::string> names;
    names.reserve(modules.size());
    for (const ListedModule* module : modules) names.push_back(module->name);
    return names;
}

}  // namespace

TEST_CASE("a module's name is the same in every spelling") {
    CHECK(module_name("kernel/drivers/block/xen-blkfront.ko.xz") == "xen_blkfront");
    CHECK(module_name("xen-blkfront") == "xen_blkfront");
    CHECK(module_name("virtio_net.ko") == "virtio_net");
}

TEST_CASE("every module comes after what it needs, and the order is always the same") {
    const auto order = tree().load_order({"virtio_pci", "virtio_net"});
    REQUIRE(order.ok());
    const auto& names = order.value();
    REQUIRE(names.size() == 5);
    CHECK(place(names, "failover") < place(names, "net_failover"));
    CHECK(place(names, "net_failover") < place(names, "virtio_net"));
    CHECK(place(names, "virtio") < place(names, "virtio_net"));
    CHECK(place(names, "virtio") < place(names, "virtio_pci"));
    CHECK(tree().load_order({"virtio_net", "virtio_pci"}).value() == names);
}

TEST_CASE("what a kernel has built in or not at all is left out") {
    const auto order = tree().load_order({"virtio_console", "e1000", "virtio_pci"});
    REQUIRE(order.ok());
    CHECK(order.value() == std::vector<std::string>{"virtio", "virtio_pci"});
    CHECK(tree().is_builtin("virtio_console"));
}

TEST_CASE("a missing dependency and a circle are told by name") {
    const ModuleTree missing("a.ko: b.ko\n", "", "");
    REQUIRE_FALSE(missing.load_order({"a"}).ok());
    CHECK(missing.load_order({"a"}).error().text.find("module a needs b") != std::string::npos);
    const ModuleTree circle("a.ko: b.ko\nb.ko: a.ko\n", "", "");
    CHECK_FALSE(circle.load_order({"a"}).ok());
}

TEST_CASE("the list in the image reads back as it was written") {
    const ModuleList list = image_list();
    const auto read = parse_module_list(format_module_list(list));
    REQUIRE(read.ok());
    CHECK(read.value().release == "6.1.0");
    REQUIRE(read.value().modules.size() == list.modules.size());
    for (std::size_t i = 0; i < list.modules.size(); ++i) {
        CHECK(read.value().modules[i].name == list.modules[i].name);
        CHECK(read.value().modules[i].file == list.modules[i].file);
        CHECK(read.value().modules[i].compressed == list.modules[i].compressed);
        CHECK(read.value().modules[i].needs == list.modules[i].needs);
        CHECK(read.value().modules[i].aliases == list.modules[i].aliases);
    }
}

TEST_CASE("a list of another version or with a wrong line is refused") {
    CHECK_FALSE(parse_module_list("").ok());
    CHECK_FALSE(parse_module_list("selfmigrate-modules 2\n").ok());
    CHECK_FALSE(parse_module_list("selfmigrate-modules 1\nneeds a\n").ok());
    CHECK_FALSE(parse_module_list("selfmigrate-modules 1\nmodule a\n").ok());
    CHECK_FALSE(parse_module_list("selfmigrate-modules 1\nnonsense\n").ok());
    CHECK(parse_module_list("selfmigrate-modules 1\n").ok());
}

TEST_CASE("a machine loads what its devices need and nothing else") {
    const ModuleList list = image_list();
    CHECK(choose_modules(list, {}, {}).empty());
    CHECK(names_of(choose_modules(list, {"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00"}, {})) ==
          std::vector<std::string>{"virtio", "virtio_pci"});
    const auto both = names_of(choose_modules(
        list, {"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "virtio:d00000001v00001AF4"}, {}));
    CHECK(both.size() == 5);
    CHECK(place(both, "failover") < place(both, "virtio_net"));
    CHECK(names_of(choose_modules(list, {}, {"net_failover"})) ==
          std::vector<std::string>{"failover", "net_failover"});
}

TEST_CASE("a module tells the kernel it was built for") {
    using namespace std::string_literals;
    CHECK(release_of_module("ELF\0license=GPL\0vermagic=6.1.0-1-amd64 SMP preempt mod_unload\0"s) ==
          "6.1.0-1-amd64");
    CHECK(release_of_module("no such thing") == "");
    CHECK(release_of_module("\0vermagic="s) == "");
}

TEST_CASE("a missing own module is refused with what to do") {
    const auto found = find_own_module("6.1.0", "/no/such/tree", "");
    REQUIRE_FALSE(found.ok());
    CHECK(found.error().text.find("--module PATH") != std::string::npos);
    CHECK_FALSE(find_own_module("6.1.0", "/no/such/tree", "/proc/version").ok());
}
