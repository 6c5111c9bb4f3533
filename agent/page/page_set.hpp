// SPDX-License-Identifier: Apache-2.0
// A set of page frames that stays small where they lie in runs.  The only file that knows CRoaring is
// page_set.cpp.
#pragma once

#include <memory>

#include "agent/page/pfn.hpp"

struct roaring_bitmap_s;

namespace smig {

// Frames below 2^32.
class PageSet {
public:
    PageSet();
    PageSet(PageSet&&) noexcept;
    PageSet& operator=(PageSet&&) noexcept;
    ~PageSet();

    void add(PfnRange range);
    [[nodiscard]] bool contains(Pfn pfn) const;
    [[nodiscard]] PageCount count() const;
    void clear();

private:
    struct Free {
        void operator()(roaring_bitmap_s* bitmap) const;
    };
    std::unique_ptr<roaring_bitmap_s, Free> bitmap_;
};

}  // namespace smig
