// SPDX-License-Identifier: Apache-2.0
#include "agent/source/target_frames.hpp"

#include <string>

#include "agent/wire/codec.hpp"

namespace smig {

namespace {

SourceEvent wrong(const Error& error) {
    return source_event::Broken{SMIG_REASON_PROTOCOL, error.text};
}

}  // namespace

SourceEvent event_of_target(const Frame& frame, std::uint64_t ram_pages, smig_wire_landed& landed_out) {
    if (frame.type == SMIG_WIRE_LANDED) {
        auto landed = decode_landed(frame.payload);
        if (!landed) return wrong(landed.error());
        if (landed.value().footprint_pages > ram_pages || landed.value().vacant_pages > ram_pages)
            return source_event::Broken{SMIG_REASON_REFUSED,
                                        "the landing environment keeps more memory than this guest has"};
        landed_out = landed.value();
        return source_event::Landed{};
    }
    if (frame.type == SMIG_WIRE_READY) {
        auto ready = decode_ready(frame.payload);
        if (!ready) return wrong(ready.error());
        return source_event::Ready{ready.value()};
    }
    if (frame.type == SMIG_WIRE_FAILED) {
        auto failed = decode_failure(frame.payload);
        if (!failed) return wrong(failed.error());
        return source_event::PeerFailed{failed.value().text};
    }
    return source_event::Broken{SMIG_REASON_PROTOCOL, std::string("the target sent ") +
                                                          type_name(static_cast<std::uint16_t>(frame.type))};
}

}  // namespace smig
