// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/bus_path.hpp"

#include <algorithm>
#include <cctype>
#include <vector>

#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

bool all_digits(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

bool is_numbered(std::string_view component, std::string_view prefix) {
    return component.starts_with(prefix) && all_digits(component.substr(prefix.size()));
}

// Discovery order gave this component its number: "virtio3", "host0", "nvme0".
bool counts_discovery(std::string_view component) {
    for (const std::string_view prefix : {"virtio", "host", "nvme"}) {
        if (is_numbered(component, prefix)) return true;
    }
    return component.starts_with("target") && component.find(':') != std::string_view::npos;
}

// "nvme0n1" and "nvme0c0n1" are namespace 1 of a controller: "n1".
std::string nvme_namespace(std::string_view component) {
    if (!component.starts_with("nvme")) return {};
    const std::size_t n = component.rfind('n');
    if (n == 0 || !all_digits(component.substr(n + 1))) return {};
    return std::string(component.substr(n));
}

// "2:0:1:0" (SCSI host:channel:target:lun) without the host, which only counts discovery.
std::string without_scsi_host(std::string_view component) {
    if (std::count(component.begin(), component.end(), ':') != 3) return {};
    const std::size_t colon = component.find(':');
    if (!all_digits(component.substr(0, colon))) return {};
    return std::string(component.substr(colon + 1));
}

// "0000:00:04.0"
bool is_pci_function(std::string_view component) {
    return component.size() == 12 && component[4] == ':' && component[7] == ':' && component[10] == '.';
}

}  // namespace

std::string bus_path_of(std::string_view sysfs_device_path) {
    constexpr std::string_view kRoot = "/sys/devices/";
    if (!sysfs_device_path.starts_with(kRoot)) return {};
    sysfs_device_path.remove_prefix(kRoot.size());
    if (sysfs_device_path.starts_with("virtual/")) return {};

    std::string path;
    std::size_t at = 0;
    while (at < sysfs_device_path.size()) {
        const std::size_t slash = std::min(sysfs_device_path.find('/', at), sysfs_device_path.size());
        const std::string_view component = sysfs_device_path.substr(at, slash - at);
        at = slash + 1;
        if (component == "net" || component == "block") break;  // what follows is a name, not a place
        if (component == "nvme") continue;                      // the class directory of NVMe controllers
        if (is_pci_function(component)) {
            path = component;  // the last function names the place; bridges above it are in its bus number
            continue;
        }
        if (counts_discovery(component)) continue;
        std::string place = without_scsi_host(component);
        if (place.empty()) place = nvme_namespace(component);
        if (!place.empty()) {
            path += "/" + place;
        } else if (component.starts_with("pci") && component.find(':') != std::string_view::npos) {
            continue;  // the root bus
        } else {
            if (!path.empty()) path += "/";
            path += component;
        }
    }
    return path;
}

std::string bus_path_of_link(const std::string& link) {
    std::string device = sysfs::resolve(link);
    // libata numbers the ports of all controllers in the order of discovery; the port's own number is its
    // place.
    for (std::size_t at = device.find("/ata"); at != std::string::npos; at = device.find("/ata", at + 1)) {
        const std::size_t end = std::min(device.find('/', at + 1), device.size());
        const std::string name = device.substr(at + 1, end - at - 1);
        if (!is_numbered(name, "ata")) continue;
        const std::string port = sysfs::read_text(device.substr(0, end) + "/ata_port/" + name + "/port_no");
        if (all_digits(port)) device.replace(at + 1, end - at - 1, "port" + port);
        break;
    }
    return bus_path_of(device);
}

}  // namespace smig
