// SPDX-License-Identifier: Apache-2.0
// walker MIB WAY PORT: memory that lies still until the machine is another, and is then walked through
// once.
//
// The ways differ in what tells the next page: `array`: the neighbour; `arrays`: the same place of four
// mappings; `file`: the neighbour in a private mapping of a file, every page of which has been written;
// `files`: a random page of such a file, in four mappings of it; `strides`: steps of a fixed pattern.  Every
// page is checked. What the walk came to is a JSON line on PORT.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "monotonic.hpp"
#include "random_fill.hpp"

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kCopies = 4;
constexpr std::size_t kStrides[] = {7, 3, 12, 5};

using Page = std::uint64_t[kPageBytes / 8];

// A mapping that no other one is merged with; `file` is -1 or one of that many pages.
Page* map(std::size_t pages, int file) {
    const std::size_t bytes = pages * kPageBytes;
    void* room = mmap(nullptr, bytes + 2 * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void* memory = static_cast<char*>(room) + kPageBytes;
    const int flags = MAP_PRIVATE | MAP_FIXED | (file < 0 ? MAP_ANONYMOUS : 0);
    if (room == MAP_FAILED || mmap(memory, bytes, PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED)
        std::exit(1);
    return static_cast<Page*>(memory);
}

int make_file(std::size_t pages) {
    const int file = open("/tmp/walked", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, static_cast<off_t>(pages * kPageBytes)) != 0) std::exit(1);
    return file;
}

// What the card of this machine is called on the wire: another machine has another.
std::string hardware_address() {
    char text[32] = {};
    const int file = open("/sys/class/net/eth0/address", O_RDONLY | O_CLOEXEC);
    [[maybe_unused]] const ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    return text;
}

// The pages in the order in which they are walked.
std::vector<Page*> lay_out(std::string_view way, std::size_t pages) {
    std::vector<Page*> order;
    if (way == "array" || way == "file") {
        Page* memory = map(pages, way == "file" ? make_file(pages) : -1);
        for (std::size_t i = 0; i < pages; ++i) order.push_back(memory + i);
    } else if (way == "strides") {
        Page* memory = map(pages, -1);
        for (std::size_t at = 0, step = 0; at < pages; at += kStrides[step++ % std::size(kStrides)])
            order.push_back(memory + at);
    } else if (way == "arrays" || way == "files") {
        const std::size_t each = pages / kCopies;
        const int file = way == "files" ? make_file(each) : -1;
        std::vector<Page*> copies;
        for (std::size_t copy = 0; copy < kCopies; ++copy) copies.push_back(map(each, file));
        std::vector<std::size_t> places(each);
        std::iota(places.begin(), places.end(), std::size_t{0});
        lab::Words random(1);
        if (way == "files")
            for (std::size_t i = each; i > 1; --i) std::swap(places[i - 1], places[random.next() % i]);
        for (const std::size_t place : places)
            for (Page* copy : copies) order.push_back(copy + place);
    }
    return order;
}

}  // namespace

int main(int argc, char** argv) {
    const std::size_t pages = argc == 4 ? std::strtoull(argv[1], nullptr, 10) << 20 >> 12 : 0;
    const std::vector<Page*> order = pages == 0 ? std::vector<Page*>() : lay_out(argv[2], pages);
    if (order.empty()) {
        std::fprintf(stderr, "usage: walker MIB array|arrays|file|files|strides PORT\n");
        return 2;
    }
    const int port = open(argv[3], O_RDWR | O_CLOEXEC);
    const auto say = [port](const std::string& text) {
        [[maybe_unused]] const ssize_t put = write(port, text.data(), text.size());
    };
    for (std::size_t i = 0; i < order.size(); ++i) {
        lab::Words words(i);
        for (std::uint64_t& word : *order[i]) word = words.next();
    }
    say("{\"program\": \"walker\", \"event\": \"filled\"}\n");
    const std::string here = hardware_address();
    while (hardware_address() == here) lab::sleep_until(lab::now_ns() + 5 * lab::kMillisecond);
    const std::int64_t begun = lab::now_ns();
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
        lab::Words words(i);
        for (const std::uint64_t word : *order[i])
            if (word != words.next()) {
                ++wrong;
                break;
            }
    }
    char line[200];
    std::snprintf(line, sizeof line,
                  "{\"program\": \"walker\", \"event\": \"walked\", \"pages\": %zu, \"wrong\": %zu, "
                  "\"walk_ms\": %.1f}\n",
                  order.size(), wrong, static_cast<double>(lab::now_ns() - begun) / 1e6);
    say(line);
    for (;;) pause();
}
