// SPDX-License-Identifier: Apache-2.0
// Takes the frames of passes and image and places their pages through the module.  Frames are hostile: before
// the image is announced every page must lie below this machine's top and outside the vacant frames,
// afterwards it must belong to the image; the image must fit this machine, and in the end every page of it
// must have come at some time.  The newest contents of a page count.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/device/device.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/frame.hpp"
#include "common/wire.h"

namespace smig {

class ImageLoader {
public:
    // `top` is this machine's (smig_info.top_pfn): no image may reach beyond it.  The device must outlive the
    // loader.
    ImageLoader(Device& device, Pfn top);
    ~ImageLoader();

    // VACANT, IMAGE, BITMAP, PAGES or ZEROS.  Pages go from the frame's buffer to the module without another
    // copy, unless they are packed. Error: protocol (the peer's fault) or the device's; the image is lost.
    Result<void> load(const Frame& frame);
    // IMAGE_END.  The counts for READY if the image is whole; Error (protocol) otherwise.
    Result<smig_wire_ready> finish(const Frame& frame);

    [[nodiscard]] std::uint64_t received_pages() const { return counts_.data_pages + counts_.zero_pages; }

private:
    struct Buffers;
    // vacant: frames of the vacant bitmap are awaited; passes: pages of any frame, or the image's header;
    // bitmap: the image's; image: its pages.
    enum class Stage { vacant, passes, bitmap, image };

    Result<void> load_vacant(const Frame& frame);
    Result<void> end_vacant();
    Result<void> load_header(const Frame& frame);
    Result<void> load_bitmap(const Frame& frame);
    Result<void> load_pages(const Frame& frame);
    Result<void> load_zeros(const Frame& frame);
    Result<void> begin_image();
    static Result<void> take_part(const BitmapView& part, ImageBitmap& into, std::uint64_t& have,
                                  const char* name);
    [[nodiscard]] bool may_take(PfnRange range) const;
    Result<void> zero_range(PfnRange range);

    Device& device_;
    Pfn top_;
    Stage stage_ = Stage::vacant;
    smig_wire_image header_{};
    ImageBitmap vacant_;
    std::uint64_t vacant_have_ = 0;
    ImageBitmap bitmap_;
    std::uint64_t bitmap_have_ = 0;
    ImageBitmap received_;
    smig_wire_ready counts_{};
    std::unique_ptr<Buffers> buffers_;
};

}  // namespace smig
