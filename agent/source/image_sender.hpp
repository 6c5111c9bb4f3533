// SPDX-License-Identifier: Apache-2.0
// Reads pages and sends them, in passes from the running guest and in the stop from the captured image:
// VACANT..., PAGES and ZEROS, IMAGE, BITMAP..., PAGES and ZEROS.  One READ and one frame for up to
// SMIG_WIRE_MAX_PAGES pages; pages go from the module's buffer to the socket, or into the packer, without
// another copy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/device/device.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/policy/compression.hpp"
#include "agent/policy/pacing.hpp"
#include "agent/wire/bytes.hpp"
#include "agent/wire/page_block.hpp"
#include "common/wire.h"

namespace smig {

// Where frames go.  Gives back each frame's checksum.
class FrameSink {
public:
    virtual ~FrameSink() = default;
    virtual Result<std::uint64_t> put(smig_wire_type type, std::span<const ByteView> pieces) = 0;
};

smig_wire_image to_wire(const smig_image_header& header);

// Since the connection began.
struct SentCounts {
    std::uint64_t data_pages = 0;
    std::uint64_t zero_pages = 0;
    std::uint64_t same_pages = 0;     // read, and as they were sent before
    std::uint64_t payload_bytes = 0;  // of all frames, headers included
    std::uint64_t read_ns = 0;        // what READ took of the time

    friend SentCounts operator-(const SentCounts& a, const SentCounts& b) {
        return {a.data_pages - b.data_pages, a.zero_pages - b.zero_pages, a.same_pages - b.same_pages,
                a.payload_bytes - b.payload_bytes, a.read_ns - b.read_ns};
    }
};

class ImageSender {
public:
    // Allocates all it will need.  Both must outlive it.
    ImageSender(Device& device, FrameSink& sink, Compress compress);
    ~ImageSender();

    // Errors are the device's or the sink's.

    // Maps the module's buffer.  Before anything else.  `top`: frames are below it.
    Result<void> get_ready(Pfn top);
    Result<void> send_vacant(const ImageBitmap& vacant) { return send_bitmap(SMIG_WIRE_VACANT, vacant); }
    Result<void> send_head(const smig_image_header& header, const ImageBitmap& image);
    // The first frames of `frames` from `next` on, which is moved behind them; it is frames.top() at the end,
    // and then nothing is held back any more.
    Result<void> send_batch(const ImageBitmap& frames, Pfn& next);
    // What send_batch() holds back to join it: when a pass ends before its last page.
    Result<void> flush();

    // What IMAGE_END says.
    [[nodiscard]] smig_wire_image_end end() const {
        return {counts_.data_pages, counts_.zero_pages, digest_};
    }
    [[nodiscard]] const SentCounts& counts() const { return counts_; }
    // Frames whose contents were sent at some time, and how many of them more than once.
    [[nodiscard]] const ImageBitmap& sent() const { return sent_; }
    [[nodiscard]] std::uint64_t repeated_pages() const { return repeated_pages_; }
    [[nodiscard]] double bytes_per_s() const { return rate_.bytes_per_s(); }
    [[nodiscard]] CompressionPolicy& compression() { return compression_; }

private:
    struct Buffers;
    Result<void> put(smig_wire_type type, std::initializer_list<ByteView> pieces);
    Result<void> send_bitmap(smig_wire_type type, const ImageBitmap& bitmap);
    Result<void> send_pages(std::uint32_t count);
    Result<void> add_zero(std::uint64_t pfn);
    void note_sent(Pfn pfn);

    Device& device_;
    FrameSink& sink_;
    std::unique_ptr<Buffers> buffers_;
    ByteView data_;  // the module's buffer
    PagePacker packer_;
    CompressionPolicy compression_;
    RateMeter rate_;
    std::vector<smig_wire_range> zeros_;
    ImageBitmap sent_;
    ImageBitmap repeated_;
    std::uint64_t repeated_pages_ = 0;
    SentCounts counts_;
    std::uint64_t digest_ = 0;
};

}  // namespace smig
