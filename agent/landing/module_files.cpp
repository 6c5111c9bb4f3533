// SPDX-License-Identifier: Apache-2.0
#include "agent/landing/module_files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "agent/base/fd.hpp"
#include "agent/machine/sysfs.hpp"

extern char** environ;

namespace smig {

namespace {

constexpr std::size_t kMaxModule = 64u << 20;
constexpr std::size_t kLongestRelease = 65;  // of uname, with its end
constexpr std::array<std::pair<std::string_view, const char*>, 3> kDecompressors{
    {{".xz", "xz"}, {".zst", "zstd"}, {".gz", "gzip"}}};

// What `program -dc path` writes.
Result<std::string> output_of(const char* program, const std::string& path) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return errno_error(Remedy::fatal, "cannot make a pipe");
    Fd reading(ends[0]);
    Fd writing(ends[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, writing.get(), STDOUT_FILENO);
    std::string name = program;
    std::string mode = "-dc";
    std::string file = path;
    std::array<char*, 4> arguments{name.data(), mode.data(), file.data(), nullptr};
    pid_t child = 0;
    const int spawned = ::posix_spawnp(&child, program, &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (spawned != 0) {
        return errno_error(Remedy::refused,
                           fmt::format("cannot decompress {}: {} (install it)", path, program), spawned);
    }
    writing.reset();
    std::string bytes;
    std::array<char, 65536> chunk;
    while (bytes.size() < kMaxModule) {
        const ssize_t got = ::read(reading.get(), chunk.data(), chunk.size());
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        bytes.append(chunk.data(), static_cast<std::size_t>(got));
    }
    reading.reset();
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return Error{Remedy::refused, fmt::format("cannot decompress {}: {} failed", path, program)};
    }
    return bytes;
}

bool file_has_line(const std::string& path, std::string_view wanted, bool at_end) {
    std::ifstream file(path);
    std::string line;
    while (std::getline(file, line)) {
        if (line == wanted || (at_end && line.ends_with(wanted))) return true;
    }
    return false;
}

std::string running_release() {
    utsname name{};
    return ::uname(&name) == 0 ? name.release : "";
}

}  // namespace

std::string module_tree_of(const std::string& release) {
    return "/lib/modules/" + release;
}

bool is_compressed(std::string_view path) {
    return !path.ends_with(".ko");
}

bool kernel_decompresses(const std::string& release) {
    const std::string config = "/boot/config-" + release;
    if (sysfs::exists(config)) return file_has_line(config, "CONFIG_MODULE_DECOMPRESS=y", false);
    return release == running_release() && file_has_line("/proc/kallsyms", " module_decompress", true);
}

Result<std::string> read_module(const std::string& path) {
    for (const auto& [suffix, program] : kDecompressors) {
        if (path.ends_with(suffix)) return output_of(program, path);
    }
    std::string bytes = sysfs::read_bytes(path, kMaxModule);
    if (bytes.empty()) return errno_error(Remedy::refused, "cannot read " + path);
    return bytes;
}

std::string release_of_module(std::string_view elf) {
    constexpr std::string_view kKey("\0vermagic=", 10);
    const std::size_t at = elf.find(kKey);
    if (at == std::string_view::npos) return {};
    const std::string_view magic = elf.substr(at + kKey.size(), kLongestRelease);
    return std::string(magic.substr(0, magic.find(' ')));
}

Result<std::string> find_own_module(const std::string& release, const std::string& tree,
                                    const std::string& named) {
    std::string path = named;
    if (path.empty()) {
        for (const char* folder : {"extra", "updates/dkms", "updates", "kernel/extra", "misc"}) {
            for (const char* suffix : {".ko", ".ko.xz", ".ko.zst"}) {
                const std::string candidate = fmt::format("{}/{}/selfmigrate{}", tree, folder, suffix);
                if (path.empty() && sysfs::exists(candidate)) path = candidate;
            }
        }
    }
    if (path.empty()) {
        return Error{Remedy::refused,
                     fmt::format("there is no selfmigrate.ko for kernel {} (looked in {}/extra and "
                                 "updates/dkms): build and install it, or name it with --module PATH",
                                 release, tree)};
    }
    Result<std::string> elf = read_module(path);
    if (!elf) return elf.error();
    const std::string built_for = release_of_module(elf.value());
    if (built_for != release) {
        return Error{Remedy::refused, fmt::format("{} is built for kernel {}, the image is for {}", path,
                                                  built_for.empty() ? "none" : built_for, release)};
    }
    return path;
}

}  // namespace smig
