// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world.hpp"

#include <algorithm>

#include "agent/policy/ownership.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/owed_codec.hpp"
#include "common/uapi/selfmigrate.h"
#include "tests/sim/world_parts.hpp"

namespace smig::sim {

World::World(std::uint64_t seed, const Faults& faults, Sabotage sabotage)
    : time_(seed), faults_(faults), sabotage_(sabotage) {
    wire_.corrupt = faults.corrupt;
    for (std::uint8_t& byte : nonce_) byte = static_cast<std::uint8_t>(time_.pick(256));
}

// The callbacks hold what holds the connections.
World::~World() {
    for (const ConnectionPtr& connection : connections_)
        for (const int side : {0, 1}) connection->attach(side, {});
}

World::ConnectionPtr World::connect(std::size_t most_payload) {
    connections_.push_back(std::make_shared<Connection>(time_, wire_, most_payload));
    return connections_.back();
}

void World::say(const std::string& text) {
    log_.push_back(std::to_string(time_.now()) + " " + text);
}

void World::break_rule(const std::string& text) {
    if (violation_.empty()) violation_ = std::to_string(time_.now()) + " ms: " + text;
}

void World::check() {
    if (guest_on_source_ && guest_on_clone_) break_rule("the guest runs on both machines");
    if (given_ && guest_on_source_) break_rule("the guest runs on the source though it was given away");
    if (guest_on_clone_ && !given_) break_rule("the guest runs on the clone though it was not given");
    int owners = guest_on_clone_ ? 1 : 0;
    for (const auto& attempt : attempts_) {
        // Later attempts begin only when the earlier ones are undone; the last one speaks for the source.
        if (attempt != attempts_.back()) continue;
        if (may_run_guest(attempt->machine.state())) ++owners;
        if (may_run_guest(attempt->machine.state()) && given_ && attempt->stop_alive)
            break_rule("the source's state says it owns a guest that was given");
    }
    if (owners > 1) break_rule("two states say that they own the guest");
    if (clone_ && may_run_guest(clone_->machine.state()) && !given_)
        break_rule("a clone's state says it owns a guest that was not given");
}

// What fails by itself, between any two things that happen.
void World::stir() {
    if (time_.chance(faults_.cut_wire) && std::exchange(wire_.up, false)) say("wire cut");
    if (time_.chance(faults_.heal_wire) && !std::exchange(wire_.up, true)) say("wire healed");
    if (time_.chance(faults_.kill_target_agent)) lose_target_agent();
    if (time_.chance(faults_.kill_target_vm)) lose_target_vm();
    if (time_.chance(faults_.kill_clone_process)) kill_clone_process();
    if (attempts_.empty()) return;
    Attempt& attempt = *attempts_.back();
    if (attempt.stop_alive && time_.chance(faults_.kill_stop_process)) kill_stop_process(attempt);
    if (attempt.supervisor_alive && time_.chance(faults_.kill_supervisor)) {
        attempt.supervisor_alive = false;
        say("supervisor dies");
    }
    if (attempt.stop_alive && time_.chance(faults_.cancel)) feed(attempt, source_event::CancelAsked{});
}

void World::run_for(std::int64_t ms) {
    const std::int64_t until = time_.now() + ms;
    while (violation_.empty() && time_.step(until)) {
        check();
        stir();
        check();
    }
}

void World::make_peace() {
    faults_ = {};
    wire_.up = true;
    wire_.corrupt = 0;
    if (target_vm_up_ && !clone_) receiving_ = true;
    // A machine that was lost for good is replaced by a new one of the same shape.
    if (!target_vm_up_) {
        target_vm_up_ = receiving_ = true;
        clone_.reset();
        target_.reset();
    }
    say("peace");
}

bool World::source_answers() const {
    return source_vm_up_ && !attempts_.empty() && attempts_.back()->answers();
}

bool World::source_finished() const {
    return !attempts_.empty() && attempts_.back()->machine.state() == SMIG_SOURCE_FINISHED;
}

bool World::supervisor_took_over() const {
    return std::ranges::any_of(attempts_, [](const auto& attempt) { return attempt->adopted; });
}

bool World::clone_waits() const {
    return clone_ && target_vm_up_ && !clone_->machine.over() && !guest_on_clone_;
}

void World::move(std::int64_t most_ms) {
    WireId epoch{};
    for (std::uint8_t& byte : epoch) byte = static_cast<std::uint8_t>(time_.pick(256));
    auto attempt = std::make_shared<Attempt>(epoch);
    attempts_.push_back(attempt);
    say("to");
    if (receiving_ && target_vm_up_ && wire_.up) {
        attempt->main = connect();
        attempt->main->attach(
            0, {[this, attempt](const Frame& frame) { on_source_frame(*attempt, frame); },
                [this, attempt](const std::string& text) {
                    feed(*attempt, source_event::Broken{SMIG_REASON_PROTOCOL, text});
                },
                [this, attempt](bool in_order) { feed(*attempt, source_event::Lost{in_order, "lost"}); }});
        accept(attempt->main);
        feed(*attempt, source_event::Start{});
    } else {
        feed(*attempt, source_event::Broken{SMIG_REASON_CANCELLED, "cannot connect"});
    }
    run_for(most_ms);
}

void World::feed(Attempt& attempt, const SourceEvent& event) {
    if (!source_vm_up_ || !(attempt.stop_alive || attempt.adopted)) return;
    const smig_session_state before = attempt.machine.state();
    const SourceActions actions = attempt.machine.on(event, time_.now());
    if (attempt.machine.state() != before)
        say(std::string("source: ") + state_name(attempt.machine.state()) + " " + attempt.machine.text());
    check();
    watch_deadline(attempt);
    for (const SourceAction& action : actions) {
        // The process may die between any two of its acts.
        if (attempt.stop_alive && time_.chance(faults_.kill_stop_process)) kill_stop_process(attempt);
        if (!attempt.stop_alive && !attempt.adopted) return;
        perform(attempt, action);
    }
}

void World::watch_deadline(Attempt& attempt) {
    const std::int64_t deadline = attempt.machine.deadline_ms();
    if (deadline >= kNever || deadline == attempt.watched) return;
    attempt.watched = deadline;
    time_.after(std::max<std::int64_t>(0, deadline - time_.now()),
                [this, self = attempt.shared_from_this()] { feed(*self, source_event::DeadlinePassed{}); });
}

void World::perform(Attempt& attempt, const SourceAction& action) {
    const auto send = [&](smig_wire_type type, const Bytes& payload) {
        if (attempt.main) attempt.main->send(0, type, payload);
    };
    switch (action.what) {
        case SourceDo::send_hello: {
            smig_wire_hello hello{};
            hello.flags = SMIG_WIRE_INSECURE;
            std::ranges::copy(attempt.machine.epoch(), hello.epoch);
            return send(SMIG_WIRE_HELLO, encode(hello));
        }
        case SourceDo::send_describe:
            return send(SMIG_WIRE_DESCRIBE, Bytes(2, std::byte{'{'}));
        case SourceDo::sample_clocks:
            return send(SMIG_WIRE_CLOCK_ASK, encode(smig_wire_clock{}));
        case SourceDo::send_land:
            return send(SMIG_WIRE_LAND, encode(smig_wire_land{0, 0, 1, 0}));
        case SourceDo::prepare:
            return prepare(attempt);
        case SourceDo::pass:
            return pass(attempt);
        case SourceDo::stop:
            return do_stop(attempt);
        case SourceDo::send_image:
            return send_image(attempt);
        case SourceDo::send_jump:
            attempt.jump_sent = true;
            return send(SMIG_WIRE_JUMP, {});
        case SourceDo::commit:
            return do_commit(attempt);
        case SourceDo::answer_go:
            return answer(attempt, action.caller, SMIG_WIRE_GO);
        case SourceDo::answer_void:
            return answer(attempt, action.caller, SMIG_WIRE_VOID);
        case SourceDo::answer_wait:
            return answer(attempt, action.caller, SMIG_WIRE_WAIT);
        case SourceDo::serve_owed:
            return serve_owed(attempt, action);
        case SourceDo::end_caller:
            if (attempt.callers.contains(action.caller)) attempt.callers[action.caller]->close(0);
            return;
        case SourceDo::undo_stop:
            if (sabotage_ != Sabotage::rollback_without_thaw) guest_on_source_ = true;
            return;
        case SourceDo::tell_peer:
            send(SMIG_WIRE_ABORT, encode(Failure{attempt.machine.reason(), attempt.machine.text()}));
            if (attempt.main) attempt.main->close(0);
            return;
        case SourceDo::report_back:
            return;
        case SourceDo::retire:
            say("source powers off");
            if (!missing_.empty()) break_rule("the source retires though pages are owed");
            time_.after(150, [this, self = attempt.shared_from_this()] {
                source_vm_up_ = false;
                for (auto& [number, caller] : self->callers) caller->vanish(0);
                for (auto& [role, link] : self->owed_links) link->vanish(0);
            });
            return;
    }
}

void World::do_stop(Attempt& attempt) {
    time_.after(10 + time_.pick(200), [this, self = attempt.shared_from_this()] {
        if (!self->stop_alive) return;
        if (time_.chance(faults_.device_fails)) return feed(*self, source_event::StopFailed{"stop"});
        guest_on_source_ = false;
        self->captured = true;
        owed_.clear();
        if (time_.chance(faults_.owes))
            for (std::uint64_t i = 0, pages = 1 + static_cast<std::uint64_t>(time_.pick(12)); i < pages; ++i)
                owed_[100 + i] = static_cast<std::uint64_t>(time_.pick(1'000'000));
        feed(*self, source_event::Stopped{!owed_.empty()});
    });
}

// The counts and the digest are the frames' own.
void World::put(Attempt& attempt, smig_wire_type type, const Bytes& payload) {
    if (attempt.main && attempt.stop_alive) attempt.sent.digest += attempt.main->send(0, type, payload);
}

void World::put_page(Attempt& attempt, std::uint64_t page) {
    Bytes payload;
    BytesWriter(payload).view(encode_pages_head(1)).number(page).number(memory_[page]);
    payload.resize(std::size_t{8} + 8 + 4096);
    put(attempt, SMIG_WIRE_PAGES, payload);
    ++attempt.sent.data_pages;
}

void World::prepare(Attempt& attempt) {
    time_.after(1 + time_.pick(300), [this, self = attempt.shared_from_this()] {
        if (!self->stop_alive || self->machine.state() != SMIG_SOURCE_PASSING) return;
        if (time_.chance(faults_.device_fails))
            return feed(*self, source_event::Broken{SMIG_REASON_DEVICE, "prepare"});
        self->sent = {};
        Bytes vacant;
        BytesWriter(vacant).view(encode_bitmap_head(0)).number(std::uint64_t{0x70});
        put(*self, SMIG_WIRE_VACANT, vacant);
        // None in some worlds: stop-copy.
        self->passes_left = static_cast<int>(time_.pick(4));
        feed(*self, source_event::Prepared{self->passes_left > 0});
    });
}

// Some pages over some time, between which the guest writes.
void World::pass(Attempt& attempt) {
    if (time_.chance(faults_.device_fails))
        return feed(attempt, source_event::Broken{SMIG_REASON_DEVICE, "pass"});
    const std::int64_t gap = 1 + time_.pick(500);
    for (std::uint64_t page = 0; page < memory_.size(); ++page) {
        time_.after(gap * static_cast<std::int64_t>(page + 1),
                    [this, page, self = attempt.shared_from_this()] {
                        if (!self->stop_alive || self->machine.state() != SMIG_SOURCE_PASSING) return;
                        put_page(*self, page);
                        if (guest_on_source_) ++memory_[static_cast<std::size_t>(time_.pick(3))];
                    });
    }
    time_.after(gap * 4, [this, self = attempt.shared_from_this()] {
        if (!self->stop_alive || self->machine.state() != SMIG_SOURCE_PASSING) return;
        if (time_.chance(faults_.switch_now)) self->passes_left = 1;
        feed(*self, source_event::PassDone{--self->passes_left > 0});
    });
}

void World::send_image(Attempt& attempt) {
    smig_wire_image image{};
    image.top_pfn = 64;
    image.image_pages = 3;
    put(attempt, SMIG_WIRE_IMAGE, encode(image));
    const std::int64_t gap = 1 + time_.pick(500);
    for (std::uint64_t page = 0; page < memory_.size(); ++page) {
        if (sabotage_ == Sabotage::stale_stop_image && page != 0) continue;
        time_.after(gap * static_cast<std::int64_t>(page + 1),
                    [this, page, self = attempt.shared_from_this()] { put_page(*self, page); });
    }
    time_.after(gap * 4, [this, self = attempt.shared_from_this()] {
        if (!self->stop_alive || self->machine.state() != SMIG_SOURCE_SENDING) return;
        if (time_.chance(faults_.device_fails))
            return feed(*self, source_event::Broken{SMIG_REASON_DEVICE, "verify"});
        if (self->main) self->main->send(0, SMIG_WIRE_IMAGE_END, encode(self->sent));
        feed(*self, source_event::ImageSent{self->sent});
    });
}

void World::do_commit(Attempt& attempt) {
    if (sabotage_ == Sabotage::go_before_commit) {
        for (auto& [number, caller] : attempt.callers) answer(attempt, number, SMIG_WIRE_GO);
        time_.after(30, [this, self = attempt.shared_from_this()] {
            if (!self->stop_alive) return;
            given_ = true;
            feed(*self, source_event::Committed{});
        });
        return;
    }
    if (time_.chance(faults_.device_fails)) return feed(attempt, source_event::CommitFailed{"commit"});
    given_ = true;
    attempt.committed = true;
    // Dead right after the module has it in its books, before the machine hears of it.
    if (time_.chance(faults_.kill_stop_process)) return kill_stop_process(attempt);
    feed(attempt, source_event::Committed{});
}

void World::answer(Attempt& attempt, int caller, smig_wire_type type) {
    const auto found = attempt.callers.find(caller);
    if (found == attempt.callers.end()) return;
    smig_wire_go go{};
    std::ranges::copy(attempt.machine.epoch(), go.epoch);
    std::ranges::copy(attempt.machine.boot_nonce(), go.boot_nonce);
    smig_wire_verdict verdict{};
    std::ranges::copy(go.epoch, verdict.epoch);
    std::ranges::copy(go.boot_nonce, verdict.boot_nonce);
    found->second->send(0, type, type == SMIG_WIRE_GO ? encode(go) : encode(verdict));
}

void World::on_source_frame(Attempt& attempt, const Frame& frame) {
    switch (frame.type) {
        case SMIG_WIRE_WELCOME:
            return feed(attempt, source_event::Welcomed{
                                     std::to_array(decode_welcome(frame.payload).value().boot_nonce)});
        case SMIG_WIRE_ACCEPT:
            return feed(attempt, source_event::Accepted{});
        case SMIG_WIRE_REFUSE:
            return feed(attempt, source_event::Refused{decode_text(frame.payload)});
        case SMIG_WIRE_CLOCK:
            return feed(attempt, source_event::ClocksSampled{});
        case SMIG_WIRE_LANDED:
            return feed(attempt, source_event::Landed{});
        case SMIG_WIRE_READY:
            return feed(attempt, source_event::Ready{decode_ready(frame.payload).value()});
        case SMIG_WIRE_FAILED:
            return feed(attempt, source_event::PeerFailed{decode_failure(frame.payload).value().text});
        default:
            return feed(attempt, source_event::Broken{SMIG_REASON_PROTOCOL, "frame"});
    }
}

void World::on_caller_frame(Attempt& attempt, int caller, const Frame& frame) {
    if (frame.type == SMIG_WIRE_ALIVE) {
        const auto alive = decode_alive(frame.payload).value();
        return feed(attempt,
                    source_event::Alive{caller, std::to_array(alive.epoch), std::to_array(alive.boot_nonce)});
    }
    if (frame.type == SMIG_WIRE_OWED_HELLO) {
        const auto hello = decode_owed_hello(frame.payload).value();
        return feed(attempt, source_event::OwedCalled{caller, std::to_array(hello.epoch),
                                                      std::to_array(hello.boot_nonce),
                                                      static_cast<smig_wire_owed_role>(hello.role),
                                                      hello.flags == SMIG_WIRE_OWED_AFRESH});
    }
    if (frame.type == SMIG_WIRE_DRAINED) {
        const auto drained = decode_verdict(frame.payload).value();
        return feed(attempt, source_event::Drained{caller, std::to_array(drained.epoch),
                                                   std::to_array(drained.boot_nonce)});
    }
    if (frame.type != SMIG_WIRE_RELEASED) return;
    const auto released = decode_verdict(frame.payload).value();
    feed(attempt,
         source_event::Released{caller, std::to_array(released.epoch), std::to_array(released.boot_nonce)});
}

void World::kill_stop_process(Attempt& attempt) {
    attempt.stop_alive = false;
    say("stop process dies");
    if (attempt.main) attempt.main->close(0);
    for (auto& [number, caller] : attempt.callers) caller->close(0);
    attempt.callers.clear();
    for (auto& [role, link] : attempt.owed_links) link->close(0);
    attempt.owed_links.clear();
    attempt.owed.reset();
    // The module undoes, the supervisor sees it.
    time_.after(20 + time_.pick(100), [this, self = attempt.shared_from_this()] { supervise(*self); });
}

void World::supervise(Attempt& attempt) {
    if (!source_vm_up_) return;
    if (!attempt.committed || sabotage_ == Sabotage::supervisor_thaws_given) {
        if (attempt.captured) guest_on_source_ = true;
        if (!attempt.supervisor_alive || !attempt.jump_sent) return;
        attempt.machine = SourceMachine::adopt(SMIG_SOURCE_ROLLED_BACK, attempt.machine.epoch(),
                                               attempt.machine.boot_nonce());
    } else {
        if (!attempt.supervisor_alive) return;
        attempt.machine =
            SourceMachine::adopt(SMIG_SOURCE_GIVEN, attempt.machine.epoch(), attempt.machine.boot_nonce(),
                                 !owed_.empty() && sabotage_ != Sabotage::forgets_owed);
    }
    attempt.adopted = true;
    say(std::string("supervisor: ") + state_name(attempt.machine.state()));
}

}  // namespace smig::sim
