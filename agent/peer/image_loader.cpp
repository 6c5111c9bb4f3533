// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/image_loader.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "agent/wire/codec.hpp"
#include "agent/wire/fault.hpp"
#include "agent/wire/page_block.hpp"

namespace smig {

static_assert(std::endian::native == std::endian::little, "image bitmap words travel as they lie in memory");
static_assert(SMIG_WIRE_MAX_PAGES <= SMIG_MAX_BATCH);

struct ImageLoader::Buffers {
    std::array<std::uint64_t, SMIG_MAX_BATCH> pfns;
    std::array<smig_wire_range, SMIG_WIRE_MAX_RANGES> ranges;
    std::array<std::byte, SMIG_WIRE_MAX_PAGES * kPageBytes> unpacked;
};

namespace {

smig_image_header from_wire(const smig_wire_image& image) {
    smig_image_header header{};
    header.magic = image.magic;
    header.resume_va = image.resume_va;
    header.resume_pa = image.resume_pa;
    header.cr3 = image.cr3;
    header.handover_pfn = image.handover_pfn;
    header.top_pfn = image.top_pfn;
    header.image_pages = image.image_pages;
    header.zero_pages = image.zero_pages;
    header.page_table_levels = image.page_table_levels;
    header.vcpus = image.vcpus;
    std::memcpy(header.release, image.release, sizeof(header.release));
    std::memcpy(header.version, image.version, sizeof(header.version));
    return header;
}

Error outside(const char* name) {
    return wire_error(WireFault::bad_range, std::string(name) + ": not a page that may come");
}
Error out_of_order(const char* name) {
    return wire_error(WireFault::unexpected, std::string(name) + " out of order");
}

}  // namespace

ImageLoader::ImageLoader(Device& device, Pfn top)
    : device_(device), top_(top), vacant_(top), received_(top), buffers_(std::make_unique<Buffers>()) {}
ImageLoader::~ImageLoader() = default;

Result<void> ImageLoader::load(const Frame& frame) {
    counts_.digest += frame.checksum;
    if (frame.type == SMIG_WIRE_VACANT) return load_vacant(frame);
    if (stage_ == Stage::vacant) return out_of_order(type_name(static_cast<std::uint16_t>(frame.type)));
    switch (frame.type) {
        case SMIG_WIRE_IMAGE:
            return load_header(frame);
        case SMIG_WIRE_BITMAP:
            return load_bitmap(frame);
        case SMIG_WIRE_PAGES:
            return load_pages(frame);
        case SMIG_WIRE_ZEROS:
            return load_zeros(frame);
        default:
            return out_of_order(type_name(static_cast<std::uint16_t>(frame.type)));
    }
}

Result<void> ImageLoader::take_part(const BitmapView& part, ImageBitmap& into, std::uint64_t& have,
                                    const char* name) {
    if (part.offset != have || part.words.size() > into.bytes() - have)
        return wire_error(WireFault::bad_range, std::string(name) + ": not the next part");
    std::memcpy(std::as_writable_bytes(into.words()).data() + part.offset, part.words.data(),
                part.words.size());
    have += part.words.size();
    if (have == into.bytes() && into.set_beyond_top())
        return wire_error(WireFault::bad_range, std::string(name) + ": set beyond the top");
    return {};
}

Result<void> ImageLoader::load_vacant(const Frame& frame) {
    if (stage_ != Stage::vacant) return out_of_order("VACANT");
    auto part = decode_bitmap(frame.payload, "VACANT");
    if (!part) return part.error();
    if (auto taken = take_part(part.value(), vacant_, vacant_have_, "VACANT"); !taken) return taken;
    return vacant_have_ < vacant_.bytes() ? Result<void>{} : end_vacant();
}

Result<void> ImageLoader::end_vacant() {
    smig_vacant vacant{};
    vacant.bitmap = std::bit_cast<std::uint64_t>(vacant_.words().data());
    vacant.bitmap_bytes = vacant_.bytes();
    stage_ = Stage::passes;
    return device_.vacant(vacant);
}

Result<void> ImageLoader::load_header(const Frame& frame) {
    if (stage_ != Stage::passes) return out_of_order("IMAGE");
    auto header = decode_image(frame.payload);
    if (!header) return header.error();
    header_ = header.value();
    if (header_.top_pfn > top_.value)
        return Error{Remedy::refused, "the image reaches to frame " + std::to_string(header_.top_pfn) +
                                          ", this machine's memory to " + std::to_string(top_.value)};
    bitmap_ = ImageBitmap(Pfn{header_.top_pfn});
    stage_ = Stage::bitmap;
    return {};
}

Result<void> ImageLoader::load_bitmap(const Frame& frame) {
    if (stage_ != Stage::bitmap) return out_of_order("BITMAP");
    auto part = decode_bitmap(frame.payload);
    if (!part) return part.error();
    if (auto taken = take_part(part.value(), bitmap_, bitmap_have_, "BITMAP"); !taken) return taken;
    return bitmap_have_ < bitmap_.bytes() ? Result<void>{} : begin_image();
}

Result<void> ImageLoader::begin_image() {
    if (bitmap_.count().value != header_.image_pages)
        return wire_error(WireFault::bad_count, "BITMAP: not image_pages");
    // What lies in vacant frames by now would be overwritten.
    if (bitmap_.meets(vacant_)) return wire_error(WireFault::bad_range, "BITMAP: a frame that was vacant");
    smig_image image{};
    image.image_bitmap = std::bit_cast<std::uint64_t>(bitmap_.words().data());
    image.image_bitmap_bytes = bitmap_.bytes();
    image.header = from_wire(header_);
    stage_ = Stage::image;
    return device_.image(image);
}

bool ImageLoader::may_take(PfnRange range) const {
    if (stage_ == Stage::image) return bitmap_.test_all(range);
    return stage_ == Stage::passes && range.end() <= top_ && range.end() >= range.start &&
           vacant_.test_none(range);
}

Result<void> ImageLoader::load_pages(const Frame& frame) {
    if (stage_ != Stage::passes && stage_ != Stage::image) return out_of_order("PAGES");
    auto pages = decode_pages(frame.payload, buffers_->pfns);
    if (!pages) return pages.error();
    const std::uint32_t count = pages.value().count;
    for (std::uint32_t i = 0; i < count; ++i)
        if (!may_take({Pfn{buffers_->pfns[i]}, PageCount{1}})) return outside("PAGES");
    ByteView contents = pages.value().data;
    if (pages.value().lz4) {
        const std::span<std::byte> unpacked = std::span(buffers_->unpacked).first(count * kPageBytes);
        if (auto done = unpack_pages(contents, unpacked); !done) return done;
        contents = unpacked;
    }
    for (std::uint32_t i = 0; i < count; ++i) received_.set(Pfn{buffers_->pfns[i]});
    counts_.data_pages += count;
    smig_place place{};
    place.pfns = std::bit_cast<std::uint64_t>(buffers_->pfns.data());
    place.data = std::bit_cast<std::uint64_t>(contents.data());
    place.nr = count;
    return device_.place(place, 0);
}

Result<void> ImageLoader::load_zeros(const Frame& frame) {
    if (stage_ != Stage::passes && stage_ != Stage::image) return out_of_order("ZEROS");
    auto count = decode_zeros(frame.payload, buffers_->ranges);
    if (!count) return count.error();
    for (std::uint32_t i = 0; i < count.value(); ++i) {
        const PfnRange range{Pfn{buffers_->ranges[i].start}, PageCount{buffers_->ranges[i].pages}};
        if (!may_take(range)) return outside("ZEROS");
        received_.set_all(range);
        counts_.zero_pages += range.pages.value;
        if (auto zeroed = zero_range(range); !zeroed) return zeroed;
    }
    return {};
}

Result<void> ImageLoader::zero_range(PfnRange range) {
    for (Pfn pfn = range.start; pfn < range.end();) {
        const std::uint64_t count = std::min<std::uint64_t>(SMIG_MAX_BATCH, range.end().value - pfn.value);
        for (std::uint64_t i = 0; i < count; ++i) buffers_->pfns[i] = pfn.value + i;
        smig_place place{};
        place.pfns = std::bit_cast<std::uint64_t>(buffers_->pfns.data());
        place.nr = static_cast<std::uint32_t>(count);
        if (auto placed = device_.place(place, SMIG_PLACE_ZERO); !placed) return placed;
        pfn.value += count;
    }
    return {};
}

Result<smig_wire_ready> ImageLoader::finish(const Frame& frame) {
    auto end = decode_image_end(frame.payload);
    if (!end) return end.error();
    if (stage_ != Stage::image) return out_of_order("IMAGE_END");
    if (end.value().data_pages != counts_.data_pages || end.value().zero_pages != counts_.zero_pages ||
        end.value().digest != counts_.digest)
        return Error{Remedy::protocol,
                     "the image that arrived is not the image that was sent (counts or digest)"};
    if (const PageCount missing = bitmap_.count_outside(received_); missing.value != 0)
        return Error{Remedy::protocol, "of the " + std::to_string(header_.image_pages) +
                                           " pages of the image " + std::to_string(missing.value) +
                                           " never arrived"};
    return counts_;
}

}  // namespace smig
