// SPDX-License-Identifier: Apache-2.0
// The owed pages of a guest as predictors see them: each by its place in the list that the module gives, in
// the order of address spaces and addresses.  Pure.
//
// What the module knows no mapping of comes last, with area 0; predictors have nothing to say of it.
//
// Memory is taken by reserve(), all at once: while lists grow they would take three times as much.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "agent/page/pfn.hpp"
#include "common/uapi/selfmigrate.h"

namespace smig {

// The place of a page in the list.
using OwedPlace = std::uint32_t;

// [begin, end) of places.
struct PlaceRange {
    OwedPlace begin = 0;
    OwedPlace end = 0;
};

class OwedIndex {
public:
    // For so many pages of a machine whose frames are below `top`.
    void reserve(std::uint64_t pages, Pfn top);
    // In the module's order.  More than were reserved asks for memory.
    void add(std::span<const smig_owed_page> pages);
    // No more will be added; before anything below.
    void seal();

    [[nodiscard]] OwedPlace size() const { return static_cast<OwedPlace>(pages_.size()); }
    [[nodiscard]] const smig_owed_page& operator[](OwedPlace place) const { return pages_[place]; }
    [[nodiscard]] std::optional<OwedPlace> find(std::uint64_t pfn) const;

    // The pages of the same mapping.
    [[nodiscard]] PlaceRange area_of(OwedPlace place) const;
    // The page of `place`'s mapping at this address.
    [[nodiscard]] std::optional<OwedPlace> find_in_area(OwedPlace place, std::uint64_t address) const;
    // Private copies of this page of the file, in whatever mapping, in no order.
    [[nodiscard]] std::span<const OwedPlace> copies_of(std::uint64_t file, std::uint64_t file_page) const;

    // Whether the two lie side by side in one mapping.
    [[nodiscard]] bool adjacent(OwedPlace before, OwedPlace after) const;
    // Pages that lie side by side, mean over all pages times 100; 0 for an empty list.
    [[nodiscard]] std::uint64_t mean_run_x100() const;

private:
    static constexpr OwedPlace kNowhere = ~OwedPlace{0};

    std::vector<smig_owed_page> pages_;
    std::vector<OwedPlace> by_pfn_;       // of every frame up to the highest that is owed; or kNowhere
    std::vector<OwedPlace> by_file_;      // those of files alone
    std::vector<OwedPlace> area_starts_;  // ascending
    std::uint64_t runs_ = 0;              // of pages side by side
};

// Some of the places.  next() and previous() look at 64 of them at a time.
class PlaceSet {
public:
    PlaceSet() = default;
    explicit PlaceSet(OwedPlace size) : size_(size), words_((std::size_t{size} + 63) / 64) {}

    void reserve(std::uint64_t size) { words_.reserve((size + 63) / 64); }
    // All of them, `size` from now on.
    void fill(OwedPlace size);
    [[nodiscard]] bool test(OwedPlace place) const { return (words_[place / 64] >> (place % 64) & 1) != 0; }
    // False: it was in already, or was not.
    bool insert(OwedPlace place);
    bool erase(OwedPlace place);
    [[nodiscard]] OwedPlace size() const { return size_; }
    [[nodiscard]] OwedPlace count() const { return count_; }
    // The first at or after `from`, and the last before `end`.
    [[nodiscard]] std::optional<OwedPlace> next(OwedPlace from) const;
    [[nodiscard]] std::optional<OwedPlace> previous(OwedPlace end) const;

private:
    OwedPlace size_ = 0;
    OwedPlace count_ = 0;
    std::vector<std::uint64_t> words_;
};

}  // namespace smig
