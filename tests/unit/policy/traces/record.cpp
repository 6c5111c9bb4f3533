// SPDX-License-Identifier: Apache-2.0
// Records in which order a program first touches the pages of its memory after a switch: what a guest would
// have to wait for.  One line a trace, page numbers relative to the first one, in the order of the faults.
//
// g++ -O2 -std=c++20 record.cpp -o record && ./record sort > sort.txt; also: hash, tree, matrix, compact
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory_resource>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPages = 4096;

std::byte* memory;
std::array<std::uint32_t, kPages> order;
std::size_t faults = 0;

void on_fault(int, siginfo_t* info, void*) {
    auto* at = static_cast<std::byte*>(info->si_addr);
    if (at < memory || at >= memory + kPages * kPage) std::abort();
    const auto page = static_cast<std::size_t>(at - memory) / kPage;
    order[faults++] = static_cast<std::uint32_t>(page);
    mprotect(memory + page * kPage, kPage, PROT_READ | PROT_WRITE);
}

// From here on every first touch is a fault.
void switch_over() {
    mprotect(memory, kPages * kPage, PROT_NONE);
}

// The middle of a sort: half of it is done before.
void sort(std::pmr::memory_resource& from) {
    std::mt19937_64 random(1);
    std::pmr::vector<std::uint64_t> numbers(1'000'000, &from);
    for (auto& number : numbers) number = random();
    std::nth_element(numbers.begin(), numbers.begin() + 500'000, numbers.end());
    switch_over();
    std::sort(numbers.begin(), numbers.end());
}

// A key-value store: some keys are hot, and now and then all values are gone through.
void hash(std::pmr::memory_resource& from) {
    std::mt19937_64 random(2);
    std::pmr::unordered_map<std::uint64_t, std::array<char, 400>> store(&from);
    for (std::uint64_t key = 0; key < 20'000; ++key) store[key * 7919][0] = 1;
    switch_over();
    std::uint64_t sum = 0;
    for (int turn = 0; turn < 20'000; ++turn) {
        const std::uint64_t key = random() % 10 < 8 ? random() % 2'000 : random() % 20'000;
        sum += static_cast<std::uint64_t>(++store[key * 7919][turn % 400]);
    }
    for (const auto& [key, value] : store) sum += static_cast<std::uint64_t>(value[0]);
    if (sum == 1) std::puts("");
}

// An index that is walked in order after it was filled at random.
void tree(std::pmr::memory_resource& from) {
    std::mt19937_64 random(3);
    std::pmr::map<std::uint64_t, std::uint64_t> index(&from);
    for (int i = 0; i < 60'000; ++i) index[random() % 1'000'000] = random();
    switch_over();
    std::uint64_t sum = 0;
    for (int turn = 0; turn < 500; ++turn) {
        auto at = index.lower_bound(random() % 1'000'000);
        for (int i = 0; i < 20 && at != index.end(); ++i, ++at) sum += at->second;
    }
    for (const auto& [key, value] : index) sum += value;
    if (sum == 1) std::puts("");
}

// Columns of a matrix that lies by rows, and its rows.
void matrix(std::pmr::memory_resource& from) {
    constexpr std::size_t kSide = 1200;
    std::pmr::vector<double> cells(kSide * kSide, 1.0, &from);
    switch_over();
    double sum = 0;
    for (std::size_t column = 0; column < 3; ++column)
        for (std::size_t row = 0; row < kSide; ++row) sum += cells[row * kSide + column];
    for (const double cell : cells) sum += cell;
    if (sum == 1) std::puts("");
}

// What a copying collector does: objects are read where they are and written one after the other.
void compact(std::pmr::memory_resource& from) {
    std::mt19937_64 random(4);
    struct Object {
        Object* next;
        std::array<char, 248> data;
    };
    std::pmr::vector<Object> old_space(20'000, &from);
    std::pmr::vector<Object> new_space(20'000, &from);
    std::vector<std::uint32_t> chain(old_space.size());
    for (std::uint32_t i = 0; i < chain.size(); ++i) chain[i] = i;
    // Neighbours mostly follow each other.
    for (std::size_t i = 0; i + 8 < chain.size(); i += 8)
        std::swap_ranges(chain.begin() + static_cast<std::ptrdiff_t>(i),
                         chain.begin() + static_cast<std::ptrdiff_t>(i) + 8,
                         chain.begin() + static_cast<std::ptrdiff_t>(random() % (chain.size() / 8) * 8));
    switch_over();
    for (std::size_t i = 0; i < chain.size(); ++i)
        std::memcpy(&new_space[i], &old_space[chain[i]], sizeof(Object));
}

}  // namespace

int main(int argc, char** argv) {
    memory = static_cast<std::byte*>(
        mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    std::pmr::monotonic_buffer_resource from(memory, kPages * kPage, std::pmr::null_memory_resource());
    const std::map<std::string, std::function<void(std::pmr::memory_resource&)>> programs{
        {"sort", sort}, {"hash", hash}, {"tree", tree}, {"matrix", matrix}, {"compact", compact}};
    const auto found = argc == 2 ? programs.find(argv[1]) : programs.end();
    if (found == programs.end()) return 2;
    found->second(from);
    for (std::size_t i = 0; i < faults; ++i) std::printf("%u%c", order[i], i + 1 < faults ? ' ' : '\n');
    return 0;
}
