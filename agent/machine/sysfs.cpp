// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/sysfs.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "agent/base/fd.hpp"

namespace smig::sysfs {

namespace {

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::vector<std::string> split(std::string_view text, bool (*separates)(char)) {
    std::vector<std::string> parts;
    std::size_t at = 0;
    while (at < text.size()) {
        while (at < text.size() && separates(text[at])) ++at;
        const std::size_t begin = at;
        while (at < text.size() && !separates(text[at])) ++at;
        if (at > begin) parts.emplace_back(text.substr(begin, at - begin));
    }
    return parts;
}

}  // namespace

std::string read_bytes(const std::string& path, std::size_t limit) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file) return {};
    std::string text;
    std::array<char, 4096> chunk;
    while (text.size() < limit) {
        const ssize_t got = ::read(file.get(), chunk.data(), std::min(chunk.size(), limit - text.size()));
        if (got <= 0) break;
        text.append(chunk.data(), static_cast<std::size_t>(got));
    }
    return text;
}

std::string read_text(const std::string& path, std::size_t limit) {
    std::string text = read_bytes(path, limit);
    while (!text.empty() && (is_space(text.back()) || text.back() == '\0')) text.pop_back();
    return text;
}

bool exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

std::vector<std::string> list(const std::string& path) {
    std::vector<std::string> names;
    DIR* directory = ::opendir(path.c_str());
    if (directory == nullptr) return names;
    while (const dirent* entry = ::readdir(directory)) {
        const std::string_view name = entry->d_name;
        if (name != "." && name != "..") names.emplace_back(name);
    }
    ::closedir(directory);
    std::sort(names.begin(), names.end());
    return names;
}

std::string resolve(const std::string& path) {
    std::array<char, PATH_MAX> real;
    if (::realpath(path.c_str(), real.data()) == nullptr) return {};
    return real.data();
}

std::string link_name(const std::string& path) {
    const std::string real = resolve(path);
    return real.substr(real.rfind('/') + 1);
}

std::vector<std::string> split_lines(std::string_view text) {
    return split(text, [](char c) { return c == '\n'; });
}

std::vector<std::string> split_words(std::string_view text) {
    return split(text, is_space);
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
    int base = 10;
    if (text.starts_with("0x")) {
        base = 16;
        text.remove_prefix(2);
    }
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

}  // namespace smig::sysfs
