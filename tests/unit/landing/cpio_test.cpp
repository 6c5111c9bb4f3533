// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "agent/base/fd.hpp"
#include "agent/landing/cpio.hpp"

using namespace smig;

namespace {

struct Entry {
    std::string path;
    unsigned long mode = 0;
    std::string contents;
    unsigned long major = 0;
    unsigned long minor = 0;
    unsigned long mtime = 0;
};

Fd memory_file() {
    return Fd(::memfd_create("image", MFD_CLOEXEC));
}

std::string all_of(const Fd& file) {
    std::string bytes(static_cast<std::size_t>(::lseek(file.get(), 0, SEEK_END)), '\0');
    REQUIRE(::pread(file.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    return bytes;
}

// A second reading of the format, from the kernel's documentation (buffer-format), not from the writer.
std::vector<Entry> read_archive(const std::string& bytes) {
    std::vector<Entry> entries;
    std::size_t at = 0;
    const auto align = [&at] { at = (at + 3) & ~std::size_t{3}; };
    for (;;) {
        REQUIRE(at % 4 == 0);
        REQUIRE(at + 110 <= bytes.size());
        REQUIRE(bytes.compare(at, 6, "070701") == 0);
        std::array<unsigned long, 13> fields{};
        for (std::size_t i = 0; i < fields.size(); ++i)
            fields.at(i) = std::stoul(bytes.substr(at + 6 + i * 8, 8), nullptr, 16);
        Entry entry;
        entry.mode = fields[1];
        entry.mtime = fields[5];
        entry.major = fields[9];
        entry.minor = fields[10];
        const std::size_t length = fields[6];
        entry.path = bytes.substr(at + 110, fields[11] - 1);
        REQUIRE(bytes.at(at + 110 + fields[11] - 1) == '\0');
        at += 110 + fields[11];
        align();
        entry.contents = bytes.substr(at, length);
        at += length;
        align();
        if (entry.path == "TRAILER!!!") return entries;
        entries.push_back(entry);
    }
}

void fill(CpioWriter& cpio) {
    cpio.add_character_device("dev/console", 0600, 5, 1);
    cpio.add_file("init", 0755, "program");
    cpio.add_file("lib/x/empty", 0644, "");
    cpio.add_file("lib/x/four", 0644, "1234");
}

}  // namespace

TEST_CASE("an archive holds what was added, parents first, times zero") {
    const Fd file = memory_file();
    CpioWriter cpio(file.get());
    fill(cpio);
    REQUIRE(cpio.finish().ok());
    const auto entries = read_archive(all_of(file));
    REQUIRE(entries.size() == 7);
    CHECK(entries[0].path == "dev");
    CHECK(entries[0].mode == (S_IFDIR | 0755));
    CHECK(entries[1].path == "dev/console");
    CHECK(entries[1].mode == (S_IFCHR | 0600));
    CHECK(entries[1].major == 5);
    CHECK(entries[1].minor == 1);
    CHECK(entries[2].path == "init");
    CHECK(entries[2].mode == (S_IFREG | 0755));
    CHECK(entries[2].contents == "program");
    CHECK(entries[3].path == "lib");
    CHECK(entries[4].path == "lib/x");
    CHECK(entries[5].contents.empty());
    CHECK(entries[6].contents == "1234");
    for (const Entry& entry : entries) CHECK(entry.mtime == 0);
    CHECK(cpio.bytes_written() == all_of(file).size());
}

TEST_CASE("the same entries give the same bytes") {
    std::string images[2];
    for (std::string& image : images) {
        const Fd file = memory_file();
        CpioWriter cpio(file.get());
        fill(cpio);
        REQUIRE(cpio.finish().ok());
        image = all_of(file);
    }
    CHECK(images[0] == images[1]);
}

TEST_CASE("a file is streamed from the disk, its own time and owner left behind") {
    const Fd source = memory_file();
    const std::string contents(200'001, 'c');
    REQUIRE(::write(source.get(), contents.data(), contents.size()) == static_cast<ssize_t>(contents.size()));
    const Fd file = memory_file();
    CpioWriter cpio(file.get());
    cpio.add_file_from("big", 0644, "/proc/self/fd/" + std::to_string(source.get()));
    REQUIRE(cpio.finish().ok());
    const auto entries = read_archive(all_of(file));
    REQUIRE(entries.size() == 1);
    CHECK(entries[0].contents == contents);
}

TEST_CASE("the first error sticks and names its cause") {
    const Fd file = memory_file();
    CpioWriter cpio(file.get());
    cpio.add_file_from("x", 0644, "/no/such/file");
    cpio.add_file("y", 0644, "fine");
    const auto finished = cpio.finish();
    REQUIRE_FALSE(finished.ok());
    CHECK(finished.error().text.find("/no/such/file") != std::string::npos);

    CpioWriter full(-1);
    full.add_file("x", 0644, "contents");
    CHECK_FALSE(full.finish().ok());

    CpioWriter twice(file.get());
    twice.add_file("x", 0644, "1");
    twice.add_file("x", 0644, "2");
    CHECK_FALSE(twice.finish().ok());

    CpioWriter absolute(file.get());
    absolute.add_file("/x", 0644, "1");
    CHECK_FALSE(absolute.finish().ok());
}
