// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/owed_index.hpp"

#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

namespace smig {

void OwedIndex::reserve(std::uint64_t pages, Pfn top) {
    pages_.reserve(pages);
    by_pfn_.reserve(top.value);
    by_file_.reserve(pages);
    area_starts_.reserve(pages);
}

void OwedIndex::add(std::span<const smig_owed_page> pages) {
    for (const smig_owed_page& page : pages) {
        const OwedPlace place = size();
        pages_.push_back(page);
        if (place == 0 || page.area != pages_[place - 1].area || page.space != pages_[place - 1].space)
            area_starts_.push_back(place);
        if (place == 0 || !adjacent(place - 1, place)) ++runs_;
        if (page.pfn >= by_pfn_.size()) by_pfn_.resize(page.pfn + 1, kNowhere);
        by_pfn_[page.pfn] = place;
        if (page.file != 0) by_file_.push_back(place);
    }
}

void OwedIndex::seal() {
    std::ranges::sort(by_file_, {}, [&](OwedPlace place) {
        return std::tuple(pages_[place].file, pages_[place].file_page, place);
    });
}

std::optional<OwedPlace> OwedIndex::find(std::uint64_t pfn) const {
    if (pfn >= by_pfn_.size() || by_pfn_[pfn] == kNowhere) return std::nullopt;
    return by_pfn_[pfn];
}

PlaceRange OwedIndex::area_of(OwedPlace place) const {
    const auto after = std::ranges::upper_bound(area_starts_, place);
    return {*(after - 1), after == area_starts_.end() ? size() : *after};
}

std::optional<OwedPlace> OwedIndex::find_in_area(OwedPlace place, std::uint64_t address) const {
    const PlaceRange range = area_of(place);
    const auto area = std::span(pages_).subspan(range.begin, range.end - range.begin);
    const auto found = std::ranges::lower_bound(area, address, {}, &smig_owed_page::address);
    if (found == area.end() || found->address != address) return std::nullopt;
    return range.begin + static_cast<OwedPlace>(found - area.begin());
}

std::span<const OwedPlace> OwedIndex::copies_of(std::uint64_t file, std::uint64_t file_page) const {
    const auto [first, last] =
        std::ranges::equal_range(by_file_, std::pair(file, file_page), {}, [&](OwedPlace place) {
            return std::pair<std::uint64_t, std::uint64_t>(pages_[place].file, pages_[place].file_page);
        });
    return {first, last};
}

bool OwedIndex::adjacent(OwedPlace before, OwedPlace after) const {
    return pages_[before].area == pages_[after].area && pages_[before].space == pages_[after].space &&
           pages_[after].address == pages_[before].address + kPageBytes;
}

std::uint64_t OwedIndex::mean_run_x100() const {
    if (pages_.empty()) return 0;
    return std::uint64_t{size()} * 100 / runs_;
}

void PlaceSet::fill(OwedPlace size) {
    size_ = count_ = size;
    words_.assign((std::size_t{size} + 63) / 64, ~0ull);
    if (size % 64 != 0) words_.back() = (1ull << (size % 64)) - 1;
}

bool PlaceSet::insert(OwedPlace place) {
    if (test(place)) return false;
    words_[place / 64] |= 1ull << (place % 64);
    ++count_;
    return true;
}

bool PlaceSet::erase(OwedPlace place) {
    if (!test(place)) return false;
    words_[place / 64] &= ~(1ull << (place % 64));
    --count_;
    return true;
}

std::optional<OwedPlace> PlaceSet::next(OwedPlace from) const {
    if (from >= size_) return std::nullopt;
    std::size_t word = from / 64;
    std::uint64_t bits = words_[word] & (~0ull << (from % 64));
    while (bits == 0) {
        if (++word == words_.size()) return std::nullopt;
        bits = words_[word];
    }
    return static_cast<OwedPlace>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
}

std::optional<OwedPlace> PlaceSet::previous(OwedPlace end) const {
    end = std::min(end, size_);
    if (end == 0) return std::nullopt;
    std::size_t word = (end - 1) / 64;
    std::uint64_t bits = words_[word] & (~0ull >> (63 - (end - 1) % 64));
    while (bits == 0) {
        if (word-- == 0) return std::nullopt;
        bits = words_[word];
    }
    return static_cast<OwedPlace>(word * 64 + 63 - static_cast<std::size_t>(std::countl_zero(bits)));
}

}  // namespace smig
