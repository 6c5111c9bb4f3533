// SPDX-License-Identifier: Apache-2.0
// The sender's frames into the loader, and frames no sender would make.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "agent/base/check.hpp"
#include "agent/peer/image_loader.hpp"
#include "agent/source/image_sender.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/fault.hpp"
#include "tests/sim/fake_machine.hpp"

using namespace smig;

namespace {

struct Recorded {
    smig_wire_type type{};
    Bytes payload;
    std::uint64_t checksum = 0;
};

class Recorder final : public FrameSink {
public:
    Result<std::uint64_t> put(smig_wire_type type, std::span<const ByteView> pieces) override {
        Recorded frame{type, {}, writer_.seal(type, pieces).checksum};
        for (const ByteView piece : pieces)
            frame.payload.insert(frame.payload.end(), piece.begin(), piece.end());
        frames.push_back(std::move(frame));
        return frames.back().checksum;
    }
    std::vector<Recorded> frames;

private:
    FrameWriter writer_;
};

// A source that was captured after some passes, and a target that has begun.
struct Both {
    FakeMachinePtr source = make_fake_machine();
    FakeMachinePtr target = make_fake_machine();
    std::unique_ptr<Device> from = make_fake_device(*source);
    std::unique_ptr<Device> into = make_fake_device(*target);
    Recorder recorder;
    ImageSender sender;
    ImageLoader loader{*into, Pfn{kFakeTop}};

    explicit Both(int passes = 0, Compress compress = Compress::off) : sender(*from, recorder, compress) {
        fill_guest(*source, 99);
        REQUIRE(from->begin(SMIG_ROLE_SOURCE).ok());
        REQUIRE(sender.get_ready(Pfn{kFakeTop}).ok());
        ImageBitmap vacant(Pfn{kFakeTop});
        smig_prepare prepare{};
        prepare.spare_pages = 500;
        prepare.vacant_bitmap = address(vacant);
        prepare.vacant_bitmap_bytes = vacant.bytes();
        REQUIRE(from->prepare(prepare, passes > 0 ? SMIG_PREPARE_SPARE : 0).ok());
        REQUIRE(sender.send_vacant(vacant).ok());
        if (passes > 0) {
            smig_track track{};
            REQUIRE(from->track(track, 0).ok());
        }
        ImageBitmap frames(Pfn{kFakeTop});
        for (int i = 0; i < passes; ++i) {
            smig_pass pass{};
            pass.bitmap = address(frames);
            pass.bitmap_bytes = frames.bytes();
            REQUIRE(from->pass(pass, 0).ok());
            send_all(frames);
        }
        if (passes > 0) {
            smig_prepare all{};
            REQUIRE(from->prepare(all, 0).ok());
        }
        ImageBitmap image(Pfn{kFakeTop});
        smig_capture capture{};
        capture.image_bitmap = address(image);
        capture.image_bitmap_bytes = image.bytes();
        capture.send_bitmap = address(frames);
        capture.send_bitmap_bytes = frames.bytes();
        REQUIRE(from->capture(capture, 0).ok());
        REQUIRE(sender.send_head(capture.header, image).ok());
        send_all(frames);
        REQUIRE(into->begin(SMIG_ROLE_TARGET).ok());
    }

    static std::uint64_t address(ImageBitmap& bitmap) {
        return std::bit_cast<std::uint64_t>(bitmap.words().data());
    }
    void send_all(const ImageBitmap& frames) {
        for (Pfn next = frames.next(Pfn{0}); next < frames.top();)
            REQUIRE(sender.send_batch(frames, next).ok());
    }
    void load_head() {
        REQUIRE(load(first(SMIG_WIRE_VACANT)).ok());
        REQUIRE(load(first(SMIG_WIRE_IMAGE)).ok());
    }

    Result<void> load(const Recorded& frame) {
        return loader.load({frame.type, frame.payload, frame.checksum});
    }
    Result<void> load_all() {
        for (const Recorded& frame : recorder.frames)
            if (auto loaded = load(frame); !loaded) return loaded;
        return {};
    }
    Result<smig_wire_ready> finish(const smig_wire_image_end& end) {
        const Bytes payload = encode(end);
        return loader.finish({SMIG_WIRE_IMAGE_END, payload, 0});
    }
    Recorded& first(smig_wire_type type) {
        const auto found = std::ranges::find(recorder.frames, type, &Recorded::type);
        SMIG_CHECK(found != recorder.frames.end());
        return *found;
    }
};

void check_refused(const Result<void>& result, WireFault fault) {
    REQUIRE_FALSE(result.ok());
    CHECK_MESSAGE(result.error().text.starts_with(wire_fault_name(fault)), result.error().text);
}

}  // namespace

TEST_CASE("an image arrives page for page, and READY says what IMAGE_END said") {
    Both both;
    REQUIRE(both.load_all().ok());
    const smig_wire_image_end end = both.sender.end();
    const auto ready = both.finish(end);
    REQUIRE(ready.ok());
    CHECK(ready.value().digest == end.digest);
    CHECK(end.zero_pages > 0);
    CHECK(end.data_pages > 0);
    CHECK(differing_pages(*both.source, *both.target) == 0);
}

TEST_CASE("all-zero pages travel as ranges, frames of pages are full but the last of a run") {
    Both both;
    std::uint64_t bytes = 0;
    for (const Recorded& frame : both.recorder.frames) {
        bytes += kFrameHeaderBytes + frame.payload.size();
        if (frame.type == SMIG_WIRE_PAGES)
            CHECK(frame.payload.size() <= std::size_t{8} + std::size_t{256} * 4104);
    }
    CHECK(bytes == both.sender.counts().payload_bytes);
    CHECK(bytes < both.sender.end().data_pages * 4104 + std::uint64_t{64} * 1024);
    CHECK(std::ranges::count(both.recorder.frames, SMIG_WIRE_ZEROS, &Recorded::type) == 1);
}

TEST_CASE("a frame that is missing, doubled or exchanged is noticed at the end") {
    Both both;
    const smig_wire_image_end end = both.sender.end();
    SUBCASE("missing") {
        both.recorder.frames.pop_back();
    }
    SUBCASE("doubled") {
        both.recorder.frames.push_back(both.recorder.frames.back());
    }
    SUBCASE("another content with the same page numbers") {
        both.recorder.frames.back().checksum ^= 1;
    }
    REQUIRE(both.load_all().ok());
    CHECK_FALSE(both.finish(end).ok());
}

TEST_CASE("an end that lies about its counts is no end") {
    Both both;
    REQUIRE(both.load_all().ok());
    smig_wire_image_end end = both.sender.end();
    ++end.data_pages;
    CHECK_FALSE(both.finish(end).ok());
}

TEST_CASE("a page that the bitmap did not announce is not placed") {
    Both both;
    std::uint64_t outside = 0;
    while (both.source->in_image[outside]) ++outside;
    SUBCASE("PAGES") {
        Recorded& pages = both.first(SMIG_WIRE_PAGES);
        pages.payload.resize(8 + 8 + 4096);
        put_le<std::uint32_t>(pages.payload.data(), 1);
        put_le<std::uint64_t>(pages.payload.data() + 8, outside);
        check_refused(both.load_all(), WireFault::bad_range);
    }
    SUBCASE("ZEROS") {
        const std::array<smig_wire_range, 1> range{{{outside, 1}}};
        both.first(SMIG_WIRE_ZEROS).payload = encode_zeros(range);
        check_refused(both.load_all(), WireFault::bad_range);
    }
    CHECK_FALSE(both.target->placed[outside]);
}

TEST_CASE("parts of an image come in order") {
    Both both;
    SUBCASE("pages before the vacant frames are known") {
        check_refused(both.load(both.first(SMIG_WIRE_PAGES)), WireFault::unexpected);
    }
    SUBCASE("the header before the vacant frames are known") {
        check_refused(both.load(both.first(SMIG_WIRE_IMAGE)), WireFault::unexpected);
    }
    SUBCASE("vacant frames twice") {
        REQUIRE(both.load(both.first(SMIG_WIRE_VACANT)).ok());
        check_refused(both.load(both.first(SMIG_WIRE_VACANT)), WireFault::unexpected);
    }
    SUBCASE("pages before the bitmap") {
        both.load_head();
        check_refused(both.load(both.first(SMIG_WIRE_PAGES)), WireFault::unexpected);
    }
    SUBCASE("the bitmap before the header") {
        REQUIRE(both.load(both.first(SMIG_WIRE_VACANT)).ok());
        check_refused(both.load(both.first(SMIG_WIRE_BITMAP)), WireFault::unexpected);
    }
    SUBCASE("a second header") {
        both.load_head();
        check_refused(both.load(both.first(SMIG_WIRE_IMAGE)), WireFault::unexpected);
    }
    SUBCASE("the end before the pages") {
        CHECK_FALSE(both.finish(both.sender.end()).ok());
    }
}

TEST_CASE("a bitmap that is not the header's") {
    Both both;
    Recorded& bitmap = both.first(SMIG_WIRE_BITMAP);
    both.load_head();
    SUBCASE("other count") {
        bitmap.payload[8] ^= std::byte{1};
        check_refused(both.load(bitmap), WireFault::bad_count);
    }
    SUBCASE("beyond the top") {
        bitmap.payload.back() |= std::byte{0x80};
        check_refused(both.load(bitmap), WireFault::bad_range);
    }
    SUBCASE("too long") {
        bitmap.payload.resize(bitmap.payload.size() + 8);
        check_refused(both.load(bitmap), WireFault::bad_range);
    }
    SUBCASE("a hole") {
        put_le<std::uint64_t>(bitmap.payload.data(), 8);
        check_refused(both.load(bitmap), WireFault::bad_range);
    }
    SUBCASE("in two parts it is the same") {
        const Bytes whole = bitmap.payload;
        Recorded part{SMIG_WIRE_BITMAP, Bytes(whole.begin(), whole.begin() + 8 + 64), 0};
        REQUIRE(both.load(part).ok());
        part.payload.assign(8, std::byte{});
        put_le<std::uint64_t>(part.payload.data(), 64);
        part.payload.insert(part.payload.end(), whole.begin() + 8 + 64, whole.end());
        CHECK(both.load(part).ok());
        CHECK(both.target->state == SMIG_STATE_LANDED);
    }
}

TEST_CASE("an image larger than this machine is refused") {
    Both both;
    ImageLoader small(*both.into, Pfn{kFakeTop - 1});
    Recorded vacant = both.first(SMIG_WIRE_VACANT);
    // The last frame of a machine that is one frame smaller.
    vacant.payload.back() &= std::byte{0x7f};
    REQUIRE(small.load({vacant.type, vacant.payload, vacant.checksum}).ok());
    const Recorded& header = both.first(SMIG_WIRE_IMAGE);
    const auto result = small.load({header.type, header.payload, header.checksum});
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().remedy == Remedy::refused);
}

TEST_CASE("pages of passes and of the stop make one image, the newest contents last") {
    Both both(3);
    REQUIRE(both.load_all().ok());
    const smig_wire_image_end end = both.sender.end();
    CHECK(both.finish(end).ok());
    CHECK(end.data_pages > static_cast<std::uint64_t>(both.source->passes));
    CHECK(both.sender.counts().same_pages > 0);
    CHECK(differing_pages(*both.source, *both.target) == 0);
}

TEST_CASE("packed pages arrive as they were") {
    Both both(2, Compress::on);
    Recorded& pages = both.first(SMIG_WIRE_PAGES);
    REQUIRE(get_le<std::uint32_t>(pages.payload.data() + 4) == SMIG_WIRE_PAGES_LZ4);
    SUBCASE("whole") {}
    SUBCASE("with a bent block they do not arrive at all") {
        pages.payload.pop_back();
        check_refused(both.load_all(), WireFault::bad_value);
        return;
    }
    REQUIRE(both.load_all().ok());
    CHECK(both.finish(both.sender.end()).ok());
    CHECK(differing_pages(*both.source, *both.target) == 0);
}

TEST_CASE("a page that no pass and no stop has brought is missed") {
    Both both(2);
    // The first pass brings most pages, and alone.
    std::erase_if(both.recorder.frames, [&, first = true](const Recorded& frame) mutable {
        return frame.type == SMIG_WIRE_PAGES && std::exchange(first, false);
    });
    REQUIRE(both.load_all().ok());
    // The frame's checksum and pages are left out of the end as well.
    smig_wire_image_end end{};
    for (const Recorded& frame : both.recorder.frames) end.digest += frame.checksum;
    end.data_pages = both.loader.received_pages() - both.sender.counts().zero_pages;
    end.zero_pages = both.sender.counts().zero_pages;
    const auto ready = both.finish(end);
    REQUIRE_FALSE(ready.ok());
    CHECK_MESSAGE(ready.error().text.find("never arrived") != std::string::npos, ready.error().text);
}

TEST_CASE("a vacant frame is never a destination") {
    Both both(1);
    std::uint64_t vacant = 0;
    while (!both.source->vacant[vacant]) ++vacant;
    REQUIRE(both.load(both.first(SMIG_WIRE_VACANT)).ok());
    SUBCASE("PAGES") {
        Recorded& pages = both.first(SMIG_WIRE_PAGES);
        pages.payload.resize(8 + 8 + 4096);
        put_le<std::uint32_t>(pages.payload.data(), 1);
        put_le<std::uint64_t>(pages.payload.data() + 8, vacant);
        check_refused(both.load(pages), WireFault::bad_range);
    }
    SUBCASE("ZEROS") {
        const std::array<smig_wire_range, 1> range{{{vacant - 1, 3}}};
        both.first(SMIG_WIRE_ZEROS).payload = encode_zeros(range);
        check_refused(both.load(both.first(SMIG_WIRE_ZEROS)), WireFault::bad_range);
    }
    SUBCASE("the image") {
        REQUIRE(both.load(both.first(SMIG_WIRE_IMAGE)).ok());
        Recorded& bitmap = both.first(SMIG_WIRE_BITMAP);
        // One page of the image for one vacant frame: the count stays.
        ImageBitmap image(Pfn{kFakeTop});
        std::ranges::copy(ByteView(bitmap.payload).subspan(8), std::as_writable_bytes(image.words()).begin());
        const Pfn taken = image.next(Pfn{0});
        bitmap.payload[8 + taken.value / 8] ^= static_cast<std::byte>(1u << (taken.value % 8));
        bitmap.payload[8 + vacant / 8] ^= static_cast<std::byte>(1u << (vacant % 8));
        check_refused(both.load(bitmap), WireFault::bad_range);
    }
    CHECK_FALSE(both.target->placed[vacant]);
}

TEST_CASE("a page beyond this machine is not taken, also before the image is known") {
    Both both;
    REQUIRE(both.load(both.first(SMIG_WIRE_VACANT)).ok());
    Recorded& pages = both.first(SMIG_WIRE_PAGES);
    pages.payload.resize(8 + 8 + 4096);
    put_le<std::uint32_t>(pages.payload.data(), 1);
    put_le<std::uint64_t>(pages.payload.data() + 8, kFakeTop);
    check_refused(both.load(pages), WireFault::bad_range);
    const std::array<smig_wire_range, 1> range{{{1, SMIG_WIRE_MAX_TOP_PFN - 1}}};
    both.first(SMIG_WIRE_ZEROS).payload = encode_zeros(range);
    check_refused(both.load(both.first(SMIG_WIRE_ZEROS)), WireFault::bad_range);
}

TEST_CASE("vacant frames: beyond the top, a hole, too few, and not all of them") {
    Both both;
    Recorded& vacant = both.first(SMIG_WIRE_VACANT);
    SUBCASE("beyond the top") {
        vacant.payload.back() |= std::byte{0x80};
        check_refused(both.load(vacant), WireFault::bad_range);
    }
    SUBCASE("a hole") {
        put_le<std::uint64_t>(vacant.payload.data(), 8);
        check_refused(both.load(vacant), WireFault::bad_range);
    }
    SUBCASE("too few for the module") {
        std::fill(vacant.payload.begin() + 8, vacant.payload.end(), std::byte{0});
        const auto result = both.load(vacant);
        REQUIRE_FALSE(result.ok());
        CHECK(result.error().remedy != Remedy::protocol);
    }
    SUBCASE("a page before all of them are known") {
        ImageLoader into(*both.into, Pfn{kFakeTop});
        vacant.payload.resize(vacant.payload.size() - 8);
        CHECK(into.load({vacant.type, vacant.payload, vacant.checksum}).ok());
        CHECK(both.target->state == SMIG_STATE_TARGET);
        const Recorded& pages = both.first(SMIG_WIRE_PAGES);
        check_refused(into.load({pages.type, pages.payload, pages.checksum}), WireFault::unexpected);
    }
}
