// SPDX-License-Identifier: Apache-2.0
// ticker: counts in one page, 100 times a second; `ticker where` prints the page's physical address.
//
// Whoever can see the VM's memory from outside sees by this page whether frozen tasks really stand still.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "monotonic.hpp"

namespace {

constexpr const char* kPlace = "/run/ticker";
constexpr std::uint64_t kMagic = 0x72656b636974616c;  // "laticker"

struct Page {
    std::uint64_t magic;
    std::uint64_t count;
};

int where() {
    long pid = 0;
    unsigned long address = 0;
    std::FILE* place = std::fopen(kPlace, "r");
    if (place == nullptr) return 1;
    const int read = std::fscanf(place, "%ld %lx", &pid, &address);
    std::fclose(place);
    if (read != 2) return 1;
    const int map = open(("/proc/" + std::to_string(pid) + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    std::uint64_t entry = 0;
    if (pread(map, &entry, sizeof entry, static_cast<off_t>(address / 4096 * 8)) != sizeof entry) return 1;
    constexpr std::uint64_t kPresent = 1ull << 63;
    if ((entry & kPresent) == 0) return 1;
    std::printf("%llu\n", static_cast<unsigned long long>((entry & ((1ull << 55) - 1)) * 4096));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "where") == 0) return where();
    void* memory =
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) return 1;
    auto* page = static_cast<volatile Page*>(memory);
    page->magic = kMagic;
    // A page that a pipe refers to stays where it is: it is neither swapped out nor moved.
    int ends[2];
    iovec whole{memory, 4096};
    if (pipe(ends) != 0 || vmsplice(ends[1], &whole, 1, 0) != 4096) return 1;
    std::FILE* place = std::fopen(kPlace, "w");
    if (place == nullptr) return 1;
    std::fprintf(place, "%ld %lx\n", static_cast<long>(getpid()), reinterpret_cast<unsigned long>(memory));
    std::fclose(place);
    for (;;) {
        page->count = page->count + 1;
        lab::sleep_until(lab::now_ns() + 10 * lab::kMillisecond);
    }
}
