// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/image_loader.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "agent/wire/codec.hpp"
#include "agent/wire/fault.hpp"

namespace smig {

static_assert(std::endian::native == std::endian::little, "image bitmap words travel as they lie in memory");
static_assert(SMIG_WIRE_MAX_PAGES <= SMIG_MAX_BATCH);

struct ImageLoader::Buffers {
    std::array<std::uint64_t, SMIG_MAX_BATCH> pfns;
    std::array<smig_wire_range, SMIG_WIRE_MAX_RANGES> ranges;
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
    return wire_error(WireFault::bad_range, std::string(name) + ": not a page of this image");
}
Error out_of_order(const char* name) {
    return wire_error(WireFault::unexpected, std::string(name) + " out of order");
}

}  // namespace

ImageLoader::ImageLoader(Device& device, Pfn top)
    : device_(device), top_(top), buffers_(std::make_unique<Buffers>()) {}
ImageLoader::~ImageLoader() = default;

Result<void> ImageLoader::load(const Frame& frame) {
    counts_.digest += frame.checksum;
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

Result<void> ImageLoader::load_header(const Frame& frame) {
    if (stage_ != Stage::header) return out_of_order("IMAGE");
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
    const BitmapView& view = part.value();
    if (view.offset != bitmap_have_ || view.words.size() > bitmap_.bytes() - bitmap_have_)
        return wire_error(WireFault::bad_range, "BITMAP: not the next part");
    std::memcpy(std::as_writable_bytes(bitmap_.words()).data() + view.offset, view.words.data(),
                view.words.size());
    bitmap_have_ += view.words.size();
    if (bitmap_have_ < bitmap_.bytes()) return {};
    return begin_image();
}

Result<void> ImageLoader::begin_image() {
    if (bitmap_.set_beyond_top()) return wire_error(WireFault::bad_range, "BITMAP: set beyond the top");
    if (bitmap_.count().value != header_.image_pages)
        return wire_error(WireFault::bad_count, "BITMAP: not image_pages");
    smig_image image{};
    image.image_bitmap = std::bit_cast<std::uint64_t>(bitmap_.words().data());
    image.image_bitmap_bytes = bitmap_.bytes();
    image.header = from_wire(header_);
    stage_ = Stage::pages;
    return device_.image(image);
}

Result<void> ImageLoader::load_pages(const Frame& frame) {
    if (stage_ != Stage::pages) return out_of_order("PAGES");
    auto pages = decode_pages(frame.payload, buffers_->pfns);
    if (!pages) return pages.error();
    const std::uint32_t count = pages.value().count;
    std::uint32_t run = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (!bitmap_.test(Pfn{buffers_->pfns[i]})) return outside("PAGES");
        if (i + 1 < count && buffers_->pfns[i + 1] == buffers_->pfns[i] + 1) continue;
        received_.add({Pfn{buffers_->pfns[run]}, PageCount{i + 1 - run}});
        run = i + 1;
    }
    counts_.data_pages += count;
    smig_place place{};
    place.pfns = std::bit_cast<std::uint64_t>(buffers_->pfns.data());
    place.data = std::bit_cast<std::uint64_t>(pages.value().data.data());
    place.nr = count;
    return device_.place(place, 0);
}

Result<void> ImageLoader::load_zeros(const Frame& frame) {
    if (stage_ != Stage::pages) return out_of_order("ZEROS");
    auto count = decode_zeros(frame.payload, buffers_->ranges);
    if (!count) return count.error();
    for (std::uint32_t i = 0; i < count.value(); ++i) {
        const PfnRange range{Pfn{buffers_->ranges[i].start}, PageCount{buffers_->ranges[i].pages}};
        if (!bitmap_.test_all(range)) return outside("ZEROS");
        received_.add(range);
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
    if (stage_ != Stage::pages) return out_of_order("IMAGE_END");
    if (end.value().data_pages != counts_.data_pages || end.value().zero_pages != counts_.zero_pages ||
        end.value().digest != counts_.digest)
        return Error{Remedy::protocol,
                     "the image that arrived is not the image that was sent (counts or digest)"};
    if (received_.count().value != header_.image_pages)
        return Error{Remedy::protocol, "the image has " + std::to_string(header_.image_pages) + " pages, " +
                                           std::to_string(received_.count().value) + " arrived"};
    return counts_;
}

}  // namespace smig
