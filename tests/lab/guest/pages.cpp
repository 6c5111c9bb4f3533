// SPDX-License-Identifier: Apache-2.0
// pages MIB MB_PER_S WRITE_PERCENT PATTERN PORT: a working set of random pages that checks itself.
//
// Every page carries its index, its generation and words made from both.  The program also keeps the
// generation of every page elsewhere: a page that is damaged, stale or another's is seen when it is next
// touched.  At the given rate it checks pages and rewrites so many of them: in `random` order, `sequential`,
// or `hot`: nine times of ten in the first tenth of them.  SIGUSR1 checks all pages.  Reports are JSON lines
// on PORT.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "monotonic.hpp"
#include "random_fill.hpp"

namespace {

constexpr std::size_t kWords = 4096 / 8;
volatile std::sig_atomic_t check_all = 0;

struct Page {
    std::uint64_t word[kWords];  // [0] index, [1] generation, then content
};

class WorkingSet {
public:
    explicit WorkingSet(std::size_t pages) : generation_(pages, 0) {
        void* memory =
            mmap(nullptr, pages * sizeof(Page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) std::exit(1);
        page_ = static_cast<Page*>(memory);
        for (std::size_t index = 0; index < pages; ++index) write(index);
    }

    std::size_t size() const { return generation_.size(); }

    void write(std::size_t index) {
        const std::uint64_t generation = ++generation_[index];
        lab::Words words(index * 0x10001 + generation);
        Page& page = page_[index];
        page.word[0] = index;
        page.word[1] = generation;
        for (std::size_t word = 2; word < kWords; ++word) page.word[word] = words.next();
    }

    bool right(std::size_t index) const {
        lab::Words words(index * 0x10001 + generation_[index]);
        const Page& page = page_[index];
        bool same = page.word[0] == index && page.word[1] == generation_[index];
        for (std::size_t word = 2; word < kWords; ++word) same &= page.word[word] == words.next();
        return same;
    }

private:
    std::vector<std::uint64_t> generation_;
    Page* page_ = nullptr;
};

enum class Pattern : std::uint8_t { random, sequential, hot };

// Which page comes next.
class Order {
public:
    Order(Pattern pattern, std::size_t pages) : pattern_(pattern), pages_(pages) {}

    std::size_t next(lab::Words& random) {
        if (pattern_ == Pattern::sequential) return next_++ % pages_;
        const bool hot = pattern_ == Pattern::hot && random.next() % 10 != 0;
        return random.next() % (hot ? std::max<std::size_t>(pages_ / 10, 1) : pages_);
    }

private:
    Pattern pattern_;
    std::size_t pages_;
    std::size_t next_ = 0;
};

std::optional<Pattern> pattern_named(std::string_view name) {
    if (name == "random") return Pattern::random;
    if (name == "sequential") return Pattern::sequential;
    if (name == "hot") return Pattern::hot;
    return std::nullopt;
}

class Port {
public:
    explicit Port(const char* path) : fd_(open(path, O_RDWR | O_CLOEXEC)) {}
    void line(const std::string& text) const {
        [[maybe_unused]] const ssize_t put = write(fd_, text.data(), text.size());
    }

private:
    int fd_;
};

}  // namespace

int main(int argc, char** argv) {
    const std::optional<Pattern> pattern = argc == 6 ? pattern_named(argv[4]) : std::nullopt;
    if (!pattern) {
        std::fprintf(stderr, "usage: pages MIB MB_PER_S WRITE_PERCENT random|sequential|hot PORT\n");
        return 2;
    }
    const double pages_per_ns = std::atof(argv[2]) * 1e6 / sizeof(Page) / 1e9;
    const auto write_percent = static_cast<unsigned>(std::atoi(argv[3]));
    const Port port(argv[5]);
    std::signal(SIGUSR1, [](int) { check_all = 1; });

    WorkingSet set(std::strtoull(argv[1], nullptr, 10) << 20 >> 12);
    Order order(*pattern, set.size());
    port.line("{\"program\": \"pages\", \"event\": \"filled\"}\n");

    lab::Words random(static_cast<std::uint64_t>(lab::clock_ns(CLOCK_REALTIME)));
    std::uint64_t checked = 0, written = 0, wrong = 0;
    const std::int64_t start = lab::now_ns();
    std::int64_t next_report = start + lab::kSecond;
    double skipped = 0;  // pages of work given up because we fell behind by more than 100 ms
    const auto report = [&](const char* event) {
        char line[256];
        std::snprintf(line, sizeof line,
                      "{\"program\": \"pages\", \"event\": \"%s\", \"mono_ns\": %lld, \"pages\": %zu, "
                      "\"checked\": %llu, "
                      "\"written\": %llu, \"wrong\": %llu, \"lost_ms\": %.1f}\n",
                      event, static_cast<long long>(lab::now_ns()), set.size(),
                      static_cast<unsigned long long>(checked), static_cast<unsigned long long>(written),
                      static_cast<unsigned long long>(wrong), skipped / pages_per_ns / 1e6);
        port.line(line);
    };
    for (;;) {
        const std::int64_t now = lab::now_ns();
        if (check_all != 0) {
            check_all = 0;
            for (std::size_t index = 0; index < set.size(); ++index, ++checked)
                wrong += set.right(index) ? 0 : 1;
            report("all-checked");
        }
        if (now >= next_report) {
            report(wrong == 0 ? "working" : "damaged");
            next_report = now + lab::kSecond;
        }
        const double due = static_cast<double>(now - start) * pages_per_ns - skipped;
        const double behind = due - static_cast<double>(checked);
        const double limit = pages_per_ns * 100 * lab::kMillisecond;
        if (behind > limit) skipped += behind - limit;
        if (behind < 1) {
            lab::sleep_until(now + 2 * lab::kMillisecond);
            continue;
        }
        const std::size_t index = order.next(random);
        wrong += set.right(index) ? 0 : 1;
        ++checked;
        if (random.next() % 100 < write_percent) {
            set.write(index);
            ++written;
        }
    }
}
