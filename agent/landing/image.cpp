// SPDX-License-Identifier: Apache-2.0
#include "agent/landing/image.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>

#include "agent/base/fd.hpp"
#include "agent/landing/cpio.hpp"
#include "agent/landing/module_files.hpp"
#include "agent/landing/module_list.hpp"
#include "agent/landing/module_tree.hpp"
#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

// What a virtual machine's disks, network cards and buses need, wherever it runs.  Those that a kernel lacks
// are left out; the landing environment loads only what it has a device for.
constexpr std::array kGenericDrivers{
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_console",
    "virtio_balloon",
    "virtio_rng",
    "e1000",
    "e1000e",
    "igb",
    "igbvf",
    "ixgbevf",
    "iavf",
    "vmxnet3",
    "vmw_pvscsi",
    "mptspi",
    "nvme",
    "ena",
    "gve",
    "hv_vmbus",
    "hv_netvsc",
    "hv_storvsc",
    "pci_hyperv",
    "xen_netfront",
    "xen_blkfront",
    "ahci",
    "ata_piix",
    "ata_generic",
    "sd_mod",
    "8139cp",
    "i6300esb",
};

// Loaded drivers in these parts of the tree have no place on the way to a jump.
constexpr std::array<std::string_view, 6> kUnwanted{"kernel/sound/",         "kernel/fs/",
                                                    "kernel/drivers/gpu/",   "kernel/drivers/media/",
                                                    "kernel/drivers/input/", "kernel/drivers/hid/"};

// Modules that have registered a device driver.
std::set<std::string> loaded_drivers() {
    std::set<std::string> names;
    for (const std::string& name : sysfs::list("/sys/module")) {
        if (sysfs::exists("/sys/module/" + name + "/initstate") &&
            !sysfs::list("/sys/module/" + name + "/drivers").empty()) {
            names.insert(module_name(name));
        }
    }
    names.erase("selfmigrate");
    return names;
}

bool is_wanted(const ModuleTree& tree, const std::string& name) {
    return std::none_of(kUnwanted.begin(), kUnwanted.end(),
                        [&](std::string_view part) { return tree.path(name).starts_with(part); });
}

Result<ModuleTree> read_tree(const std::string& folder, const std::string& release) {
    const std::string dependencies = sysfs::read_bytes(folder + "/modules.dep", 16u << 20);
    if (dependencies.empty()) {
        return Error{
            Remedy::refused,
            fmt::format("the modules of kernel {} are not installed ({}/modules.dep is missing): install "
                        "the package linux-image-{}",
                        release, folder, release)};
    }
    return ModuleTree(dependencies, sysfs::read_bytes(folder + "/modules.builtin"),
                      sysfs::read_bytes(folder + "/modules.alias", 16u << 20));
}

// The running program's libraries and their interpreter, by the paths under which the program looks for them.
std::vector<std::string> own_libraries() {
    std::vector<std::string> paths;
    ::dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* context) {
            const std::string name = info->dlpi_name == nullptr ? "" : info->dlpi_name;
            if (name.starts_with('/')) static_cast<std::vector<std::string>*>(context)->push_back(name);
            return 0;
        },
        &paths);
    std::sort(paths.begin(), paths.end());
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    return paths;
}

class ImageBuilder {
public:
    ImageBuilder(CpioWriter& cpio, ImageSummary& summary) : cpio_(cpio), summary_(summary) {}

    void add_program() {
        for (const char* folder : {"dev", "proc", "sys", "run"}) cpio_.add_directory(folder);
        cpio_.add_character_device("dev/console", 0600, 5, 1);
        cpio_.add_file_from("init", 0755, "/proc/self/exe");
        for (const std::string& library : own_libraries()) {
            cpio_.add_file_from(library.substr(1), 0755, library);
            summary_.libraries.push_back(library);
        }
    }

    Result<void> add_modules(const ModuleTree& tree, const std::string& folder,
                             const std::set<std::string>& wanted) {
        Result<std::vector<std::string>> order = tree.load_order(wanted);
        if (!order) return order.error();
        const bool as_is = kernel_decompresses(summary_.release);
        ModuleList list{summary_.release, {}};
        for (const std::string& name : order.value()) {
            const std::string path = folder + "/" + tree.path(name);
            const bool compressed = as_is && is_compressed(path);
            ListedModule module{name, name + (compressed ? path.substr(path.rfind(".ko")) : ".ko"),
                                compressed, tree.needs(name), tree.aliases(name)};
            std::sort(module.needs.begin(), module.needs.end());
            if (Result<void> added =
                    add_module(std::string(kModuleFolder) + "/" + module.file, path, compressed);
                !added) {
                return added;
            }
            list.modules.push_back(std::move(module));
        }
        cpio_.add_file(kModuleListFile, 0644, format_module_list(list));
        summary_.modules = std::move(order).value();
        return {};
    }

    // `as_is`: the target's kernel takes the file as it lies there.
    Result<void> add_module(const std::string& name, const std::string& path, bool as_is) {
        if (as_is) {
            cpio_.add_file_from(name, 0644, path);
            return {};
        }
        Result<std::string> bytes = read_module(path);
        if (!bytes) return bytes.error();
        cpio_.add_file(name, 0644, bytes.value());
        return {};
    }

private:
    CpioWriter& cpio_;
    ImageSummary& summary_;
};

Result<void> write_image(int fd, const ImageOptions& options, const ModuleTree& tree,
                         const std::string& folder, ImageSummary& summary) {
    std::set<std::string> wanted(kGenericDrivers.begin(), kGenericDrivers.end());
    if (options.release.empty()) {
        for (const std::string& name : loaded_drivers()) {
            if (tree.is_builtin(name)) continue;
            if (!tree.has(name)) {
                summary.left_out.push_back(name);
            } else if (is_wanted(tree, name)) {
                wanted.insert(name);
            }
        }
    }
    CpioWriter cpio(fd);
    ImageBuilder builder(cpio, summary);
    builder.add_program();
    if (Result<void> added = builder.add_modules(tree, folder, wanted); !added) return added;
    if (Result<void> added = builder.add_module(kOwnModuleFile, summary.own_module, false); !added)
        return added;
    if (Result<void> finished = cpio.finish(); !finished) return finished;
    summary.bytes = cpio.bytes_written();
    if (::fsync(fd) != 0) return errno_error(Remedy::refused, "cannot write the image");
    return {};
}

// The new name must survive a power cut too; a folder that cannot be synced (a pipe's, a FAT's) is no reason
// to fail.
void sync_folder_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    const Fd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory) (void)::fsync(directory.get());
}

}  // namespace

Result<ImageSummary> make_image(const ImageOptions& options) {
    ImageSummary summary;
    utsname running{};
    if (::uname(&running) != 0) return errno_error(Remedy::fatal, "uname");
    summary.release = options.release.empty() ? running.release : options.release;
    const std::string folder = options.tree.empty() ? module_tree_of(summary.release) : options.tree;
    Result<ModuleTree> tree = read_tree(folder, summary.release);
    if (!tree) return tree.error();
    Result<std::string> own = find_own_module(summary.release, folder, options.own_module);
    if (!own) return own.error();
    summary.own_module = std::move(own).value();

    const std::string temporary = options.output + ".tmp";
    Fd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!file) return errno_error(Remedy::refused, "cannot make " + temporary);
    Result<void> written = write_image(file.get(), options, tree.value(), folder, summary);
    if (written && ::rename(temporary.c_str(), options.output.c_str()) != 0) {
        written =
            errno_error(Remedy::refused, fmt::format("cannot rename {} to {}", temporary, options.output));
    }
    if (!written) {
        ::unlink(temporary.c_str());
        return written.error();
    }
    sync_folder_of(options.output);
    return summary;
}

}  // namespace smig
