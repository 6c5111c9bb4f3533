// SPDX-License-Identifier: Apache-2.0
// Reads the captured image and sends it: IMAGE, BITMAP..., PAGES and ZEROS.  One READ and one frame for up to
// SMIG_WIRE_MAX_PAGES pages; pages go from the module's buffer to the socket without another copy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/device/device.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/wire/bytes.hpp"
#include "common/wire.h"

namespace smig {

// Where frames go.  Gives back each frame's checksum.
class FrameSink {
public:
    virtual ~FrameSink() = default;
    virtual Result<std::uint64_t> put(smig_wire_type type, std::span<const ByteView> pieces) = 0;
};

smig_wire_image to_wire(const smig_image_header& header);

class ImageSender {
public:
    // Allocates all it will need.  Both must outlive it.
    ImageSender(Device& device, FrameSink& sink);
    ~ImageSender();

    // Error: the device's or the sink's.
    Result<void> send(const smig_image_header& header, const ImageBitmap& bitmap);

    // What IMAGE_END says; valid after send().
    [[nodiscard]] smig_wire_image_end end() const { return end_; }
    // Of all image frames, headers included.
    [[nodiscard]] std::uint64_t payload_bytes() const { return payload_bytes_; }
    // What READ took of the time.
    [[nodiscard]] std::uint64_t read_ns() const { return read_ns_; }

private:
    struct Buffers;
    Result<void> put(smig_wire_type type, std::initializer_list<ByteView> pieces);
    Result<void> send_bitmap(const ImageBitmap& bitmap);
    Result<void> send_batch(std::uint32_t count);
    Result<void> add_zero(std::uint64_t pfn);
    Result<void> flush_zeros();

    Device& device_;
    FrameSink& sink_;
    std::unique_ptr<Buffers> buffers_;
    std::vector<smig_wire_range> zeros_;
    smig_wire_image_end end_{};
    std::uint64_t payload_bytes_ = 0;
    std::uint64_t read_ns_ = 0;
};

}  // namespace smig
