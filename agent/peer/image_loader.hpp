// SPDX-License-Identifier: Apache-2.0
// Takes the frames of an image and places their pages through the module.  Frames are hostile: every page
// must belong to the image that the bitmap announced, the bitmap to this machine, and in the end the image
// must be whole.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/device/device.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/page/page_set.hpp"
#include "agent/wire/frame.hpp"
#include "common/wire.h"

namespace smig {

class ImageLoader {
public:
    // `top` is this machine's (smig_info.top_pfn): no image may reach beyond it.  The device must outlive the
    // loader.
    ImageLoader(Device& device, Pfn top);
    ~ImageLoader();

    // IMAGE, BITMAP, PAGES or ZEROS.  Pages go from the frame's buffer to the module without another copy.
    // Error: protocol (the peer's fault) or the device's; the image is lost.
    Result<void> load(const Frame& frame);
    // IMAGE_END.  The counts for READY if the image is whole; Error (protocol) otherwise.
    Result<smig_wire_ready> finish(const Frame& frame);

    [[nodiscard]] std::uint64_t received_pages() const { return counts_.data_pages + counts_.zero_pages; }

private:
    struct Buffers;
    enum class Stage { header, bitmap, pages };

    Result<void> load_header(const Frame& frame);
    Result<void> load_bitmap(const Frame& frame);
    Result<void> load_pages(const Frame& frame);
    Result<void> load_zeros(const Frame& frame);
    Result<void> begin_image();
    Result<void> zero_range(PfnRange range);

    Device& device_;
    Pfn top_;
    Stage stage_ = Stage::header;
    smig_wire_image header_{};
    ImageBitmap bitmap_;
    std::uint64_t bitmap_have_ = 0;
    PageSet received_;
    smig_wire_ready counts_{};
    std::unique_ptr<Buffers> buffers_;
};

}  // namespace smig
