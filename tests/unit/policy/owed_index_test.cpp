// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/owed_index.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "agent/page/pfn.hpp"

using namespace smig;

namespace {

smig_owed_page page(std::uint64_t pfn, std::uint32_t space, std::uint32_t area, std::uint64_t vpn,
                    std::uint64_t file = 0, std::uint64_t file_page = 0) {
    return {pfn, vpn * kPageBytes, file, file_page, space, area};
}

// Two spaces: an anonymous mapping with a hole and a mapping of file 7, then another of file 7.
OwedIndex small_index() {
    const std::vector<smig_owed_page> pages{
        page(50, 1, 1, 10),       page(40, 1, 1, 11),       page(30, 1, 1, 20),
        page(20, 1, 2, 30, 7, 0), page(10, 1, 2, 31, 7, 1), page(60, 2, 3, 11, 7, 1),
    };
    OwedIndex index;
    index.reserve(pages.size(), Pfn{64});
    index.add(std::span(pages).first(2));
    index.add(std::span(pages).subspan(2));
    index.seal();
    return index;
}

}  // namespace

TEST_CASE("an owed page is found by its frame, and by nothing else") {
    const OwedIndex index = small_index();
    for (OwedPlace place = 0; place < index.size(); ++place) CHECK(index.find(index[place].pfn) == place);
    CHECK_FALSE(index.find(11).has_value());
    CHECK_FALSE(index.find(~0ull).has_value());
}

TEST_CASE("a mapping's pages lie together, and an address leads to them in that mapping alone") {
    const OwedIndex index = small_index();
    CHECK(index.area_of(1).begin == 0);
    CHECK(index.area_of(1).end == 3);
    CHECK(index.area_of(4).begin == 3);
    CHECK(index.area_of(5).end == 6);
    CHECK(index.find_in_area(0, 20 * kPageBytes) == OwedPlace{2});
    CHECK_FALSE(index.find_in_area(0, 30 * kPageBytes).has_value());
    CHECK_FALSE(index.find_in_area(0, 12 * kPageBytes).has_value());
    CHECK(index.find_in_area(5, 11 * kPageBytes) == OwedPlace{5});
}

TEST_CASE("pages without a mapping at the end of the list harm nobody's order") {
    OwedIndex index;
    const std::vector<smig_owed_page> pages{page(50, 1, 1, 10), page(40, 2, 2, 5), page(3, 0, 0, 0),
                                            page(9, 0, 0, 0)};
    index.add(pages);
    index.seal();
    CHECK(index.find(9) == OwedPlace{3});
    CHECK(index.find_in_area(1, 5 * kPageBytes) == OwedPlace{1});
    CHECK(index.area_of(2).begin == 2);
    CHECK(index.mean_run_x100() == 100);
}

TEST_CASE("copies of a file's page are found in every mapping of it") {
    const OwedIndex index = small_index();
    const auto copies = index.copies_of(7, 1);
    CHECK(std::vector<OwedPlace>(copies.begin(), copies.end()) == std::vector<OwedPlace>{4, 5});
    CHECK(index.copies_of(7, 0).size() == 1);
    CHECK(index.copies_of(8, 1).empty());
    CHECK(index.copies_of(0, 0).empty());
}

TEST_CASE("runs end where an address is left out or a mapping ends") {
    CHECK(small_index().mean_run_x100() == 150);  // 2, 1, 2, 1
    CHECK(OwedIndex().mean_run_x100() == 0);
}

TEST_CASE("a set of places answers as a plain one does") {
    std::mt19937 random(3);
    for (const OwedPlace size : {OwedPlace{1}, OwedPlace{63}, OwedPlace{64}, OwedPlace{65}, OwedPlace{300}}) {
        PlaceSet set;
        set.fill(size);
        std::set<OwedPlace> plain;
        for (OwedPlace place = 0; place < size; ++place) plain.insert(place);
        for (int turn = 0; turn < 2000; ++turn) {
            const auto place = static_cast<OwedPlace>(random() % size);
            if (random() % 3 == 0)
                CHECK(set.insert(place) == plain.insert(place).second);
            else
                CHECK(set.erase(place) == (plain.erase(place) > 0));
            CHECK(set.count() == plain.size());
            const auto from = static_cast<OwedPlace>(random() % (size + 1));
            const auto next = plain.lower_bound(from);
            CHECK(set.next(from) == (next == plain.end() ? std::nullopt : std::optional(*next)));
            CHECK(set.previous(from) ==
                  (next == plain.begin() ? std::nullopt : std::optional(*std::prev(next))));
        }
    }
    CHECK_FALSE(PlaceSet().next(0).has_value());
    CHECK_FALSE(PlaceSet().previous(5).has_value());
}
