// SPDX-License-Identifier: Apache-2.0
#include "agent/page/image_bitmap.hpp"

#include <doctest/doctest.h>

#include <random>
#include <set>

#include "agent/page/page_set.hpp"

using namespace smig;

TEST_CASE("a bitmap finds its frames in order") {
    ImageBitmap bitmap(Pfn{200});
    for (const std::uint64_t pfn : {0u, 63u, 64u, 130u, 199u}) bitmap.set(Pfn{pfn});
    std::vector<std::uint64_t> found;
    for (Pfn pfn = bitmap.next(Pfn{0}); pfn < bitmap.top(); pfn = bitmap.next(pfn + PageCount{1}))
        found.push_back(pfn.value);
    CHECK(found == std::vector<std::uint64_t>{0, 63, 64, 130, 199});
    CHECK(bitmap.count().value == 5);
    CHECK(bitmap.test(Pfn{64}));
    CHECK_FALSE(bitmap.test(Pfn{65}));
    CHECK_FALSE(bitmap.test(Pfn{200}));
    CHECK(bitmap.next(Pfn{200}) == Pfn{200});
}

TEST_CASE("bits beyond the top are seen, and never found") {
    ImageBitmap bitmap(Pfn{70});
    CHECK_FALSE(bitmap.set_beyond_top());
    bitmap.words()[1] = 1ull << 6;
    CHECK(bitmap.set_beyond_top());
    CHECK(bitmap.next(Pfn{0}) == Pfn{70});
    ImageBitmap whole_words(Pfn{128});
    whole_words.words()[1] = ~0ull;
    CHECK_FALSE(whole_words.set_beyond_top());
}

TEST_CASE("a range is in the image only when each of its frames is") {
    std::mt19937_64 random(3);
    for (int run = 0; run < 2000; ++run) {
        ImageBitmap bitmap(Pfn{300});
        std::set<std::uint64_t> holes;
        for (std::uint64_t pfn = 0; pfn < 300; ++pfn) {
            if (random() % 100 == 0)
                holes.insert(pfn);
            else
                bitmap.set(Pfn{pfn});
        }
        const std::uint64_t start = random() % 300;
        const std::uint64_t pages = random() % (300 - start);
        const auto hole = holes.lower_bound(start);
        CHECK(bitmap.test_all({Pfn{start}, PageCount{pages}}) ==
              (hole == holes.end() || *hole >= start + pages));
        ImageBitmap inverse(Pfn{300});
        for (const std::uint64_t pfn : holes) inverse.set(Pfn{pfn});
        CHECK(inverse.test_none({Pfn{start}, PageCount{pages}}) ==
              (hole == holes.end() || *hole >= start + pages));
    }
    ImageBitmap full(Pfn{64});
    full.words()[0] = ~0ull;
    CHECK(full.test_all({Pfn{0}, PageCount{64}}));
    CHECK_FALSE(full.test_all({Pfn{1}, PageCount{64}}));
    CHECK_FALSE(full.test_all({Pfn{1}, PageCount{~0ull}}));
}

TEST_CASE("a page set counts each frame once") {
    PageSet set;
    set.add({Pfn{10}, PageCount{5}});
    set.add({Pfn{12}, PageCount{5}});
    set.add({Pfn{0}, PageCount{0}});
    CHECK(set.count().value == 7);
    CHECK(set.contains(Pfn{16}));
    CHECK_FALSE(set.contains(Pfn{17}));
    set.clear();
    CHECK(set.count().value == 0);
}
