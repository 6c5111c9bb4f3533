// SPDX-License-Identifier: Apache-2.0
// subject MIB MB_PER_S: a process that CRIU moves: fills MIB with random pages and rewrites one after the
// other.
//
// It looks at the clock every half millisecond.  SIGUSR1: begins anew to look for its longest gap; SIGUSR2:
// writes to RESULT how long that was (ms), and how many pages are damaged.
#include <sys/mman.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/lab/monotonic.hpp"
#include "tests/lab/random_fill.hpp"

namespace {

constexpr std::size_t kWords = 4096 / 8;
constexpr const char* kResult = "/run/criu/result";
volatile std::sig_atomic_t begin_anew = 0;
volatile std::sig_atomic_t report = 0;

class Pages {
public:
    explicit Pages(std::size_t pages) : generation_(pages, 0) {
        void* at = mmap(nullptr, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) std::exit(1);
        words_ = static_cast<std::uint64_t*>(at);
        for (std::size_t page = 0; page < pages; ++page) write(page);
    }
    std::size_t size() const { return generation_.size(); }
    void write(std::size_t page) {
        lab::Words words(page * 0x10001 + ++generation_[page]);
        for (std::size_t i = 0; i < kWords; ++i) words_[page * kWords + i] = words.next();
    }
    std::size_t damaged() const {
        std::size_t count = 0;
        for (std::size_t page = 0; page < size(); ++page) {
            lab::Words words(page * 0x10001 + generation_[page]);
            bool right = true;
            for (std::size_t i = 0; i < kWords; ++i) right &= words_[page * kWords + i] == words.next();
            count += right ? 0 : 1;
        }
        return count;
    }

private:
    std::vector<std::uint64_t> generation_;
    std::uint64_t* words_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    std::signal(SIGUSR1, [](int) { begin_anew = 1; });
    std::signal(SIGUSR2, [](int) { report = 1; });
    Pages pages(std::strtoull(argv[1], nullptr, 10) << 8);
    const double pages_per_ns = std::atof(argv[2]) * 1e6 / 4096 / 1e9;
    std::int64_t last = lab::now_ns(), longest = 0;
    double due = 0;
    for (std::size_t next = 0;;) {
        lab::sleep_until(lab::now_ns() + lab::kMillisecond / 2);
        const std::int64_t now = lab::now_ns();
        longest = begin_anew != 0 ? 0 : std::max(longest, now - last);
        begin_anew = 0;
        // what a gap has cost is not made up for
        due += static_cast<double>(std::min(now - last, 10 * lab::kMillisecond)) * pages_per_ns;
        last = now;
        for (; due >= 1; --due) pages.write(next++ % pages.size());
        if (report != 0) {
            report = 0;
            std::FILE* file = std::fopen(kResult, "w");
            if (file == nullptr) return 1;
            std::fprintf(file, "%.1f %zu\n", static_cast<double>(longest) / 1e6, pages.damaged());
            std::fclose(file);
        }
    }
}
