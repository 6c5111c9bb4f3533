// SPDX-License-Identifier: Apache-2.0
// Page numbers and counts as types that do not mix.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace smig {

inline constexpr std::size_t kPageBytes = 4096;

struct PageCount {
    std::uint64_t value = 0;
    friend auto operator<=>(const PageCount&, const PageCount&) = default;
    friend PageCount operator+(PageCount a, PageCount b) { return {a.value + b.value}; }
    PageCount& operator+=(PageCount more) {
        value += more.value;
        return *this;
    }
    [[nodiscard]] std::uint64_t bytes() const { return value * kPageBytes; }
};

// The number of a page frame.
struct Pfn {
    std::uint64_t value = 0;
    friend auto operator<=>(const Pfn&, const Pfn&) = default;
    friend Pfn operator+(Pfn first, PageCount pages) { return {first.value + pages.value}; }
};

// [start, start + pages).
struct PfnRange {
    Pfn start;
    PageCount pages;
    friend bool operator==(const PfnRange&, const PfnRange&) = default;
    [[nodiscard]] Pfn end() const { return start + pages; }
};

}  // namespace smig
