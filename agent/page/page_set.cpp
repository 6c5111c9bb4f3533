// SPDX-License-Identifier: Apache-2.0
#include "agent/page/page_set.hpp"

#include <roaring/roaring.h>

#include "agent/base/check.hpp"

namespace smig {

void PageSet::Free::operator()(roaring_bitmap_s* bitmap) const {
    roaring_bitmap_free(bitmap);
}

PageSet::PageSet() : bitmap_(roaring_bitmap_create()) {
    SMIG_CHECK(bitmap_ != nullptr);
}
PageSet::PageSet(PageSet&&) noexcept = default;
PageSet& PageSet::operator=(PageSet&&) noexcept = default;
PageSet::~PageSet() = default;

void PageSet::add(PfnRange range) {
    SMIG_CHECK(range.end().value <= 1ull << 32 && range.end() >= range.start);
    if (range.pages.value > 0) roaring_bitmap_add_range(bitmap_.get(), range.start.value, range.end().value);
}

bool PageSet::contains(Pfn pfn) const {
    return pfn.value < 1ull << 32 &&
           roaring_bitmap_contains(bitmap_.get(), static_cast<std::uint32_t>(pfn.value));
}

PageCount PageSet::count() const {
    return {roaring_bitmap_get_cardinality(bitmap_.get())};
}

void PageSet::clear() {
    roaring_bitmap_clear(bitmap_.get());
}

}  // namespace smig
