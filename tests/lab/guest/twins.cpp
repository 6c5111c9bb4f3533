// SPDX-License-Identifier: Apache-2.0
// twins MIB VERDICT: memory that the kernel rearranges all the time, checked all the time.
//
// One half is for same-page merging: each page is like many others until it is rewritten, for a while.  The
// other half is for khugepaged: small pages that may become large ones, of which every now and then one is
// given back and written anew, which splits a large page.  SIGUSR1 checks all pages and makes the file
// VERDICT: their number, and how many were ever wrong.
#include <sys/mman.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "monotonic.hpp"
#include "random_fill.hpp"

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kWords = kPageBytes / 8;
constexpr std::size_t kLargeBytes = 2 << 20;
constexpr std::uint64_t kKinds = 16;  // of like pages
constexpr std::int64_t kPause = 5 * lab::kMillisecond;

volatile std::sig_atomic_t check_all = 0;

class Half {
public:
    // Page `index` is filled from seed first(index).
    Half(std::size_t bytes, int advice, std::uint64_t (*first)(std::size_t)) : seed_(bytes / kPageBytes) {
        void* memory =
            mmap(nullptr, bytes + kLargeBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) std::exit(1);
        auto* begin = static_cast<std::byte*>(memory);
        begin += kLargeBytes - reinterpret_cast<std::uintptr_t>(memory) % kLargeBytes;
        words_ = reinterpret_cast<std::uint64_t*>(begin);
        // not large from the start: khugepaged is to have something to do
        madvise(begin, bytes, MADV_NOHUGEPAGE);
        for (std::size_t index = 0; index < seed_.size(); ++index) write(index, first(index));
        if (madvise(begin, bytes, advice) != 0) {
            std::perror("madvise");
            std::exit(1);
        }
    }

    std::size_t size() const { return seed_.size(); }
    std::uint64_t seed(std::size_t index) const { return seed_[index]; }

    void write(std::size_t index, std::uint64_t seed) {
        seed_[index] = seed;
        lab::Words words(seed);
        for (std::size_t word = 0; word < kWords; ++word) page(index)[word] = words.next();
    }

    void give_back(std::size_t index) { madvise(page(index), kPageBytes, MADV_DONTNEED); }

    bool right(std::size_t index) const {
        lab::Words words(seed_[index]);
        bool same = true;
        for (std::size_t word = 0; word < kWords; ++word) same &= page(index)[word] == words.next();
        return same;
    }

private:
    std::uint64_t* page(std::size_t index) const { return words_ + index * kWords; }

    std::vector<std::uint64_t> seed_;
    std::uint64_t* words_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: twins MIB VERDICT\n");
        return 2;
    }
    const std::size_t bytes = std::strtoull(argv[1], nullptr, 10) << 20 >> 1;
    const std::string verdict = argv[2], unfinished = verdict + ".unfinished";
    std::signal(SIGUSR1, [](int) { check_all = 1; });
    const auto like = [](std::size_t index) { return 1 + index % kKinds; };
    Half merged(bytes, MADV_MERGEABLE, like);
    Half large(bytes, MADV_HUGEPAGE, [](std::size_t index) -> std::uint64_t { return 1'000'000 + index; });

    lab::Words random(static_cast<std::uint64_t>(lab::clock_ns(CLOCK_REALTIME)));
    std::uint64_t next_seed = 1'000'000'000;
    std::size_t wrong = 0;
    for (;;) {
        if (check_all != 0) {
            check_all = 0;
            for (const Half* half : {&merged, &large})
                for (std::size_t index = 0; index < half->size(); ++index)
                    wrong += half->right(index) ? 0 : 1;
            std::FILE* file = std::fopen(unfinished.c_str(), "w");
            if (file == nullptr) return 1;
            std::fprintf(file, "%zu %zu\n", merged.size() + large.size(), wrong);
            if (std::fclose(file) != 0 || std::rename(unfinished.c_str(), verdict.c_str()) != 0) return 1;
        }
        const std::size_t one = random.next() % merged.size();
        wrong += merged.right(one) ? 0 : 1;
        merged.write(one, merged.seed(one) <= kKinds ? next_seed++ : like(one));
        const std::size_t other = random.next() % large.size();
        wrong += large.right(other) ? 0 : 1;
        large.give_back(other);
        large.write(other, next_seed++);
        lab::sleep_until(lab::now_ns() + kPause);
    }
}
