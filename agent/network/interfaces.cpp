// SPDX-License-Identifier: Apache-2.0
#include "agent/network/interfaces.hpp"

#include <net/if.h>

#include "agent/machine/bus_path.hpp"
#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

constexpr int kMaxStacking = 8;  // VLAN on bond on ...
const std::string kNetClass = "/sys/class/net/";

std::string bus_path_below(const std::string& interface, int depth) {
    if (depth > kMaxStacking) return {};
    std::string path = bus_path_of_link(kNetClass + interface);
    if (!path.empty()) return path;
    for (const std::string& entry : sysfs::list(kNetClass + interface)) {
        if (!entry.starts_with("lower_")) continue;
        path = bus_path_below(entry.substr(6), depth + 1);
        if (!path.empty()) return path;
    }
    return {};
}

}  // namespace

std::string bus_path_below(const std::string& interface) {
    return bus_path_below(interface, 0);
}

std::vector<Nic> list_nics() {
    std::vector<Nic> nics;
    for (const std::string& name : sysfs::list(kNetClass)) {
        Nic nic;
        nic.name = name;
        nic.bus_path = bus_path_of_link(kNetClass + name);
        nic.interface_index = ::if_nametoindex(name.c_str());
        const auto mac = parse_mac(sysfs::read_text(kNetClass + name + "/address", 64));
        if (nic.bus_path.empty() || nic.interface_index == 0 || !mac) continue;
        nic.mac = *mac;
        nics.push_back(std::move(nic));
    }
    return nics;
}

}  // namespace smig
