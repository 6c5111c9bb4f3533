// SPDX-License-Identifier: Apache-2.0
#include "agent/source/owed_server.hpp"

#include <algorithm>
#include <bit>

#include "agent/base/check.hpp"
#include "agent/base/clock.hpp"
#include "agent/page/pfn.hpp"
#include "agent/wire/owed_codec.hpp"

namespace smig {

namespace {

constexpr std::size_t kListed = 1024;  // entries at a time
constexpr std::int64_t kStallMs = 8'000;
constexpr std::int64_t kUnreadableMs = 100;
constexpr int kTurnFrames = 64;  // sent before the sockets are looked at again
static_assert(OwedDispatch::kMostPages <= SMIG_WIRE_MAX_PAGES);

// How the chosen mode goes about it.
OwedRules owed_rules(const TransferOptions& transfer) {
    const ModeTraits& mode = traits_of(transfer.mode);
    OwedRules rules;
    if (transfer.speculation)
        rules.speculation = *transfer.speculation;
    else if (mode.speculates)
        rules.speculation = all_speculation();
    rules.order = mode.order;
    rules.adapts = transfer.mode == Mode::automatic && !transfer.speculation;
    return rules;
}

}  // namespace

struct OwedServer::Buffers {
    std::array<smig_owed_page, kListed> listed;
    std::array<std::uint64_t, SMIG_WIRE_MAX_FETCH> fetched;
    std::array<std::uint8_t, OwedDispatch::kMostPages> status;
    std::array<std::byte, OwedDispatch::kMostPages * 8> pfns;
    // The module's own buffer is mapped only before the stop, and a supervisor was not there.
    std::array<std::byte, OwedDispatch::kMostPages * kPageBytes> pages;
};

OwedServer::OwedServer(const TransferOptions& transfer, const PushWindow& window)
    : dispatch_(index_, owed_rules(transfer), window),
      push_after_ms_(transfer.push_after_ms),
      buffers_(std::make_unique<Buffers>()) {}

OwedServer::~OwedServer() = default;

Result<void> OwedServer::list(Device& device, const Known& known) {
    SMIG_CHECK(!begun());
    auto listed = device.owed_list(index_.size(), buffers_->listed);
    if (!listed) return listed.error();
    const auto pages = std::span(buffers_->listed).first(listed.value());
    if (index_.size() == 0) {
        // There was no memory for it before the module gave the first of the list.
        index_.reserve(known.pages, known.top);
        dispatch_.reserve(known.pages);
    }
    index_.add(pages);
    for (const smig_owed_page& page : pages)
        if (known.sent_before != nullptr && known.sent_before->test(Pfn{page.pfn})) ++sent_before_;
    if (!pages.empty()) return {};
    index_.seal();
    mean_run_x100_ = index_.mean_run_x100();
    dispatch_.begin(known.bytes_per_s);
    push_from_ms_ = mono_ms() + push_after_ms_;
    device_ = &device;
    return {};
}

void OwedServer::serve(smig_wire_owed_role role, bool afresh, Channel channel) {
    link(role) = {std::move(channel), false};
    dispatch_.connected(role, afresh);
}

void OwedServer::add_to(std::vector<pollfd>& entries) const {
    for (const Link* one : {&demand_, &push_})
        if (one->channel) entries.push_back({one->channel->fd(), POLLIN, 0});
}

void OwedServer::drop(smig_wire_owed_role role) {
    link(role) = {};
    dispatch_.lost(role);
}

bool OwedServer::take_in(smig_wire_owed_role role, const Frame& frame) {
    if (frame.type == SMIG_WIRE_OWED_TAKEN) {
        const auto taken = decode_owed_taken(frame.payload);
        return taken && dispatch_.taken(role, taken.value().frames, mono_ns());
    }
    if (frame.type != SMIG_WIRE_FETCH || role != SMIG_OWED_DEMAND) return false;
    const auto fetch = decode_fetch(frame.payload, buffers_->fetched);
    if (!fetch) return false;
    dispatch_.fetch(std::span(buffers_->fetched).first(fetch.value().count), fetch.value().again);
    return true;
}

void OwedServer::receive(smig_wire_owed_role role) {
    Link& one = link(role);
    while (one.channel) {
        auto frame = one.channel->receive(0);
        if (!frame && frame.error().remedy == Remedy::retry) return;
        if (!frame || !take_in(role, frame.value())) drop(role);
    }
}

bool OwedServer::greet(smig_wire_owed_role role) {
    Link& one = link(role);
    smig_wire_owed_ready ready{};
    ready.owed_pages = index_.size();
    ready.sent_before = sent_before_;
    ready.mean_run_x100 = mean_run_x100_;
    ready.speculation = dispatch_.speculation_mask();
    ready.order = dispatch_.order();
    const Bytes payload = encode(ready);
    one.ready_sent = one.channel && one.channel->send(SMIG_WIRE_OWED_READY, {payload}, kStallMs);
    if (one.ready_sent) return true;
    drop(role);
    return false;
}

Result<std::uint64_t> OwedServer::send_batch(Channel& channel, const OwedBatch& batch) {
    SMIG_CHECK(!batch.pfns.empty() && batch.pfns.size() <= OwedDispatch::kMostPages);
    smig_read read{};
    read.nr = static_cast<std::uint32_t>(batch.pfns.size());
    read.pfns = std::bit_cast<std::uint64_t>(batch.pfns.data());
    read.status = std::bit_cast<std::uint64_t>(buffers_->status.data());
    read.data = std::bit_cast<std::uint64_t>(buffers_->pages.data());
    if (auto done = device_->read(read); !done) return done.error();
    std::uint32_t with_data = 0;
    std::uint32_t zeros = 0;
    for (std::uint32_t i = 0; i < read.nr; ++i)
        if (buffers_->status.at(i) == SMIG_PAGE_DATA)
            put_le(buffers_->pfns.data() + std::size_t{8} * with_data++, batch.pfns[i]);
    if (with_data != read.nr_data) return Error{Remedy::fatal, "module: READ contradicts itself"};
    for (std::uint32_t i = 0; i < read.nr; ++i)
        if (buffers_->status.at(i) == SMIG_PAGE_ZERO)
            put_le(buffers_->pfns.data() + std::size_t{8} * (with_data + zeros++), batch.pfns[i]);
    // What cannot be read is not sent; the clone will say that it is missing.
    if (with_data + zeros == 0) return Error{Remedy::retry, "module: READ: none of these pages"};
    const auto head = encode_owed_pages_head(with_data, zeros, batch.origin);
    const ByteView pfns = ByteView(buffers_->pfns).first(std::size_t{8} * (with_data + zeros));
    const ByteView pages = ByteView(buffers_->pages).first(kPageBytes * with_data);
    if (auto sent = channel.send(SMIG_WIRE_OWED_PAGES, {head, pfns, pages}, kStallMs); !sent)
        return sent.error();
    return std::uint64_t{kFrameHeaderBytes + head.size() + pfns.size() + pages.size()};
}

bool OwedServer::send_next(smig_wire_owed_role role) {
    Link& one = link(role);
    if (one.channel && !one.ready_sent && !greet(role)) return false;
    if (!one.channel) return false;
    const auto batch = dispatch_.next(role);
    if (!batch) return false;
    auto sent = send_batch(*one.channel, *batch);
    if (sent) {
        dispatch_.sent(role, *batch, sent.value(), mono_ns());
        return true;
    }
    dispatch_.undo(*batch);
    if (sent.error().remedy == Remedy::peer_lost)
        drop(role);
    else
        unreadable_until_ms_ = mono_ms() + kUnreadableMs;
    return false;
}

std::int64_t OwedServer::service() {
    receive(SMIG_OWED_DEMAND);
    receive(SMIG_OWED_PUSH);
    if (!begun()) return kNever;
    if (const std::int64_t now = mono_ms(); now < unreadable_until_ms_) return unreadable_until_ms_ - now;
    for (int frame = 0; frame < kTurnFrames; ++frame) {
        // A fault that came meanwhile is answered before anything else is sent.
        if (frame > 0) receive(SMIG_OWED_DEMAND);
        if (send_next(SMIG_OWED_DEMAND)) continue;
        receive(SMIG_OWED_PUSH);
        if (const std::int64_t now = mono_ms(); now < push_from_ms_) return push_from_ms_ - now;
        if (!send_next(SMIG_OWED_PUSH)) return kNever;
    }
    return 0;
}

}  // namespace smig
