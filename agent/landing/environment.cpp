// SPDX-License-Identifier: Apache-2.0
#include "agent/landing/environment.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/module.h>
#include <net/if.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "agent/base/fd.hpp"
#include "agent/landing/module_list.hpp"
#include "agent/machine/sysfs.hpp"
#include "agent/network/interfaces.hpp"
#include "agent/network/netlink.hpp"

namespace smig {

namespace {

constexpr int kSetConsoleLevel = 8;  // of klogctl
constexpr int kWarningsShown = 5;    // everything more urgent than this level reaches the console
constexpr unsigned kPollMs = 20;
constexpr unsigned kQuietRounds = 5;  // rounds without a new device until the drivers are thought complete
constexpr unsigned kMaxRounds = 50;
const std::string kFolder = std::string("/") + kModuleFolder;

void sleep_ms(unsigned ms) {
    const timespec pause{ms / 1000, static_cast<long>(ms % 1000) * 1'000'000};
    ::nanosleep(&pause, nullptr);
}

void mount_one(const char* type, const char* point, const char* proof, const Say& say) {
    if (sysfs::exists(proof)) return;
    ::mkdir(point, 0755);
    if (::mount(type, point, type, MS_NOSUID | MS_NOEXEC, nullptr) != 0) {
        say(errno_error(Remedy::fatal, fmt::format("cannot mount {} on {}", type, point)).text);
    }
}

// 0 or an errno.
int load_module(const std::string& path, bool compressed) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return errno;
    const int flags = compressed ? MODULE_INIT_COMPRESSED_FILE : 0;
    if (::syscall(SYS_finit_module, file.get(), "", flags) == 0 || errno == EEXIST) return 0;
    return errno;
}

std::set<std::string> present_devices() {
    std::set<std::string> aliases;
    for (const std::string& bus : sysfs::list("/sys/bus")) {
        const std::string folder = fmt::format("/sys/bus/{}/devices", bus);
        for (const std::string& device : sysfs::list(folder)) {
            const std::string alias = sysfs::read_text(fmt::format("{}/{}/modalias", folder, device), 4096);
            if (!alias.empty()) aliases.insert(alias);
        }
    }
    return aliases;
}

// A new driver may find a new bus: goes on until nothing more appears.
std::set<std::string> load_drivers(const ModuleList& list, const Say& say) {
    std::set<std::string> tried;
    std::set<std::string> loaded;
    unsigned quiet = 0;
    for (unsigned round = 0; round < kMaxRounds && quiet < kQuietRounds; ++round) {
        // SCSI disks appear some time after their host: their driver must wait for them, not the other way
        // round.
        std::set<std::string> names;
        if (!sysfs::list("/sys/class/scsi_host").empty()) names.insert("sd_mod");
        bool progress = false;
        for (const ListedModule* module : choose_modules(list, present_devices(), names)) {
            if (!tried.insert(module->name).second) continue;
            progress = true;
            const int error = load_module(kFolder + "/" + module->file, module->compressed);
            if (error == 0) {
                loaded.insert(module->name);
            } else {
                say(errno_error(Remedy::refused, "cannot load module " + module->name, error).text);
            }
        }
        quiet = progress ? 0 : quiet + 1;
        if (!progress) sleep_ms(kPollMs);
    }
    return loaded;
}

void free_module_files() {
    for (const std::string& file : sysfs::list(kFolder))
        ::unlink(fmt::format("{}/{}", kFolder, file).c_str());
    ::rmdir(kFolder.c_str());
}

// By name, or by MAC.
unsigned find_interface(const std::string& wanted) {
    const auto mac = parse_mac(wanted);
    if (!mac) return ::if_nametoindex(wanted.c_str());
    for (const Nic& nic : list_nics()) {
        if (nic.mac == *mac) return nic.interface_index;
    }
    return 0;
}

unsigned await_interface(const std::string& wanted, unsigned wait_ms) {
    unsigned index = find_interface(wanted);
    for (unsigned waited = 0; index == 0 && waited < wait_ms; waited += kPollMs) {
        sleep_ms(kPollMs);
        index = find_interface(wanted);
    }
    return index;
}

int configure(Netlink& netlink, const BootNetwork& network, unsigned index) {
    if (int error = netlink.set_up(index); error != 0) return error;
    if (int error = netlink.add_address(index, network.address, network.prefix); error != 0) return error;
    return network.gateway ? netlink.set_route({}, 0, network.gateway, index) : 0;
}

}  // namespace

void mount_kernel_filesystems(const Say& say) {
    mount_one("proc", "/proc", "/proc/self/stat", say);
    mount_one("sysfs", "/sys", "/sys/kernel", say);
    mount_one("devtmpfs", "/dev", "/dev/kmsg", say);
}

void show_kernel_warnings() {
    const auto words = sysfs::split_words(sysfs::read_text("/proc/sys/kernel/printk", 256));
    const auto level = words.empty() ? std::nullopt : sysfs::parse_number(words.front());
    if (level && *level < kWarningsShown) ::klogctl(kSetConsoleLevel, nullptr, kWarningsShown);
}

void keep_no_huge_pages() {
    const Fd file(::open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY | O_CLOEXEC));
    // A kernel without huge pages has no such file, and nothing to gain.
    if (file && ::write(file.get(), "never", 5) != 5) return;
}

void load_image_modules(const Say& say) {
    const std::string text = sysfs::read_bytes("/" + std::string(kModuleListFile));
    if (text.empty()) return;
    const Result<ModuleList> list = parse_module_list(text);
    if (!list) {
        say(list.error().text);
        return;
    }
    const std::set<std::string> loaded = load_drivers(list.value(), say);
    say(fmt::format("drivers: {}",
                    loaded.empty() ? std::string("none needed") : fmt::format("{}", fmt::join(loaded, " "))));

    const std::string own = "/" + std::string(kOwnModuleFile);
    const int error = load_module(own, false);
    if (error == 0) {
        say("selfmigrate.ko is loaded");
    } else if (error == ENOENT) {
        say("there is no selfmigrate.ko in this image: no guest can land here");
    } else {
        say(errno_error(Remedy::refused,
                        "cannot load selfmigrate.ko: no guest can land here (the kernel log above names why)",
                        error)
                .text);
    }
    free_module_files();
}

void await_clock(unsigned wait_ms) {
    const std::string current = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    for (unsigned waited = 0; waited < wait_ms && sysfs::read_text(current) == "tsc-early"; waited += kPollMs)
        sleep_ms(kPollMs);
}

bool bring_up_network(const BootOptions& options, unsigned wait_ms, const Say& say) {
    Result<Netlink> opened = Netlink::open();
    if (!opened) {
        say(opened.error().text);
        return false;
    }
    Netlink& netlink = opened.value();
    if (const unsigned loopback = ::if_nametoindex("lo"); loopback == 0 || netlink.set_up(loopback) != 0) {
        say("cannot bring up lo");
    }
    bool complete = true;
    for (const BootNetwork& network : options.networks) {
        const unsigned index = await_interface(network.interface, wait_ms);
        if (index == 0) {
            std::string there;
            for (const Nic& nic : list_nics()) there += fmt::format(" {} ({})", nic.name, to_string(nic.mac));
            say(fmt::format("there is no network interface {}; there are:{}", network.interface,
                            there.empty() ? " none" : there));
            complete = false;
            continue;
        }
        if (const int error = configure(netlink, network, index); error != 0) {
            say(errno_error(Remedy::refused,
                            fmt::format("cannot set {} on {}", to_string(network.address), network.interface),
                            error)
                    .text);
            complete = false;
            continue;
        }
        say(fmt::format("network: {}/{} on {}", to_string(network.address), network.prefix,
                        network.interface));
    }
    return complete;
}

}  // namespace smig
