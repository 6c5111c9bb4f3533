// SPDX-License-Identifier: Apache-2.0
// The target's half of a World, and the clone.
#include <algorithm>

#include "agent/policy/ownership.hpp"
#include "agent/wire/codec.hpp"
#include "tests/sim/world.hpp"
#include "tests/sim/world_parts.hpp"

namespace smig::sim {

void World::accept(const ConnectionPtr& connection) {
    auto target = std::make_shared<Target>(time_.now());
    target->connection = connection;
    // One source at a time.
    const bool busy = target_ && target_->alive && !target_->machine.over();
    connection->attach(1, {[this, target](const Frame& frame) { on_target_frame(*target, frame); },
                           [this, target](const std::string& text) {
                               feed(*target, target_event::Broken{SMIG_REASON_PROTOCOL, text}, nullptr);
                           },
                           [this, target](bool) { feed(*target, target_event::Lost{"lost"}, nullptr); }});
    if (busy) {
        connection->send(1, SMIG_WIRE_FAILED, encode(Failure{SMIG_REASON_BUSY, "busy"}));
        connection->close(1);
        return;
    }
    target_ = target;
    watch_deadline(*target);
}

void World::feed(Target& target, const TargetEvent& event, const Frame* frame) {
    if (!target.alive || !target_vm_up_) return;
    const smig_session_state before = target.machine.state();
    const TargetActions actions = target.machine.on(event, time_.now());
    if (target.machine.state() != before)
        say(std::string("target: ") + state_name(target.machine.state()) + " " + target.machine.text());
    watch_deadline(target);
    for (const TargetDo action : actions) {
        if (!target.alive) return;
        perform(target, action, frame);
    }
}

void World::watch_deadline(Target& target) {
    const std::int64_t deadline = target.machine.deadline_ms();
    if (deadline >= kNever || deadline == target.watched) return;
    target.watched = deadline;
    time_.after(std::max<std::int64_t>(0, deadline - time_.now()), [this, self = target.shared_from_this()] {
        feed(*self, target_event::DeadlinePassed{}, nullptr);
    });
}

void World::perform(Target& target, TargetDo action, const Frame* frame) {
    const auto send = [&](smig_wire_type type, const Bytes& payload) {
        target.connection->send(1, type, payload);
    };
    const auto later = [&](const TargetEvent& event) {
        time_.after(1 + time_.pick(100),
                    [this, event, self = target.shared_from_this()] { feed(*self, event, nullptr); });
    };
    const bool fails = time_.chance(faults_.device_fails);
    switch (action) {
        case TargetDo::send_welcome: {
            smig_wire_welcome welcome{};
            std::ranges::copy(nonce_, welcome.boot_nonce);
            return send(SMIG_WIRE_WELCOME, encode(welcome));
        }
        case TargetDo::check:
            return later(target_event::Checked{!fails, "does not fit"});
        case TargetDo::send_accept:
            return send(SMIG_WIRE_ACCEPT, {});
        case TargetDo::send_refuse:
            return send(SMIG_WIRE_REFUSE, Bytes(1, std::byte{'x'}));
        case TargetDo::send_clock:
            return send(SMIG_WIRE_CLOCK, encode(smig_wire_clock{}));
        case TargetDo::land:
            return later(fails ? TargetEvent(target_event::Broken{SMIG_REASON_NO_MEMORY, "land"})
                               : target_event::LandDone{});
        case TargetDo::send_landed:
            return send(SMIG_WIRE_LANDED, encode(smig_wire_landed{}));
        case TargetDo::load:
            target.counts.digest += frame->checksum;
            if (frame->type == SMIG_WIRE_PAGES) {
                ++target.counts.data_pages;
                target.contents[get_le<std::uint64_t>(frame->payload.data() + 8) % 3] =
                    get_le<std::uint64_t>(frame->payload.data() + 16);
            }
            if (fails) later(target_event::Broken{SMIG_REASON_DEVICE, "place"});
            return;
        case TargetDo::finish_image: {
            const auto end = decode_image_end(frame->payload).value();
            if (end.digest != target.counts.digest || end.data_pages != target.counts.data_pages)
                return later(target_event::Broken{SMIG_REASON_INTEGRITY, "digest"});
            return later(target_event::ImageWhole{});
        }
        case TargetDo::send_ready:
            return send(SMIG_WIRE_READY, encode(target.counts));
        case TargetDo::jump:
            return jump(target);
        case TargetDo::send_failed:
            return send(SMIG_WIRE_FAILED, encode(Failure{target.machine.reason(), target.machine.text()}));
        case TargetDo::close_device:
            return;
        case TargetDo::disconnect:
            target.connection->close(1);
            return;
    }
}

void World::on_target_frame(Target& target, const Frame& frame) {
    switch (frame.type) {
        case SMIG_WIRE_HELLO: {
            const auto hello = decode_hello(frame.payload).value();
            target.epoch = std::to_array(hello.epoch);
            return feed(target, target_event::Hello{hello.flags == SMIG_WIRE_INSECURE}, &frame);
        }
        case SMIG_WIRE_DESCRIBE:
            return feed(target, target_event::Described{}, &frame);
        case SMIG_WIRE_CLOCK_ASK:
            return feed(target, target_event::ClockAsked{}, &frame);
        case SMIG_WIRE_LAND:
            return feed(target, target_event::LandAsked{}, &frame);
        case SMIG_WIRE_VACANT:
        case SMIG_WIRE_IMAGE:
        case SMIG_WIRE_PAGES:
            return feed(target, target_event::ImagePart{}, &frame);
        case SMIG_WIRE_IMAGE_END:
            return feed(target, target_event::ImageEnd{}, &frame);
        case SMIG_WIRE_JUMP:
            return feed(target, target_event::JumpAsked{}, &frame);
        default:
            return feed(target, target_event::PeerFailed{"abort"}, &frame);
    }
}

void World::jump(Target& target) {
    auto self = target.shared_from_this();
    if (time_.chance(faults_.device_fails)) {
        time_.after(100,
                    [this, self] { feed(*self, target_event::Broken{SMIG_REASON_DEVICE, "jump"}, nullptr); });
        return;
    }
    if (target.contents != memory_) break_rule("the clone has other memory than the guest");
    // Below the point of no return the landing environment is no more.
    target.alive = false;
    receiving_ = false;
    auto clone = std::make_shared<Clone>(target.epoch, nonce_);
    clone_ = clone;
    say("jump");
    if (time_.chance(faults_.jump_hangs)) {
        say("the clone hangs");
        target.connection->vanish(1);
        return;
    }
    const std::int64_t sleeps = time_.chance(faults_.clone_sleeps) ? 60'000 : 0;
    time_.after(50 + time_.pick(300) + sleeps, [this, self, clone] {
        if (!clone->alive) return;
        // The clone knows no such connection, and may say so.
        if (time_.chance(0.5))
            self->connection->reset(1);
        else
            self->connection->vanish(1);
        feed(*clone, clone_event::Woke{});
    });
}

void World::feed(Clone& clone, const CloneEvent& event) {
    if (!clone.alive) return;
    const smig_session_state before = clone.machine.state();
    CloneActions actions = clone.machine.on(event, time_.now());
    if (sabotage_ == Sabotage::clone_trusts_silence &&
        std::holds_alternative<clone_event::DeadlinePassed>(event) && before == SMIG_CLONE_FENCED)
        actions = {CloneDo::release};
    if (clone.machine.state() != before) say(std::string("clone: ") + state_name(clone.machine.state()));
    check();
    watch_deadline(clone);
    for (const CloneDo action : actions) {
        if (!clone.alive) return;
        perform(clone, action);
    }
}

void World::watch_deadline(Clone& clone) {
    const std::int64_t deadline = clone.machine.deadline_ms();
    if (deadline >= kNever || deadline == clone.watched) return;
    clone.watched = deadline;
    time_.after(std::max<std::int64_t>(0, deadline - time_.now()),
                [this, self = clone.shared_from_this()] { feed(*self, clone_event::DeadlinePassed{}); });
}

void World::perform(Clone& clone, CloneDo action) {
    auto self = clone.shared_from_this();
    switch (action) {
        case CloneDo::connect: {
            // To the control port of the attempt that it was made in.
            const std::shared_ptr<Attempt> attempt = attempt_of(clone);
            const bool heard = attempt && attempt->answers() && source_vm_up_ && wire_.up;
            if (!heard) {
                time_.after(wire_.up && source_vm_up_ ? 2 : 1000,
                            [this, self] { feed(*self, clone_event::ConnectFailed{}); });
                return;
            }
            const int caller = attempt->next_caller++;
            auto control = connect();
            attempt->callers[caller] = control;
            control->attach(
                0,
                {[this, attempt, caller](const Frame& frame) { on_caller_frame(*attempt, caller, frame); },
                 [attempt, caller](const std::string&) { attempt->callers[caller]->close(0); }, [](bool) {}});
            control->attach(1, {[this, self](const Frame& frame) { on_clone_frame(*self, frame); },
                                [this, self](const std::string&) { feed(*self, clone_event::Lost{}); },
                                [this, self](bool in_order) { feed(*self, clone_event::Lost{in_order}); }});
            clone.control = control;
            time_.after(2, [this, self] { feed(*self, clone_event::Connected{}); });
            return;
        }
        case CloneDo::send_alive:
        case CloneDo::send_drained:
        case CloneDo::send_released: {
            smig_wire_alive alive{};
            std::ranges::copy(clone.epoch, alive.epoch);
            std::ranges::copy(clone.boot_nonce, alive.boot_nonce);
            smig_wire_verdict released{};
            std::ranges::copy(clone.epoch, released.epoch);
            std::ranges::copy(clone.boot_nonce, released.boot_nonce);
            if (clone.control && clone.control->open(1)) {
                const bool asks = action == CloneDo::send_alive;
                clone.control->send(1,
                                    asks                              ? SMIG_WIRE_ALIVE
                                    : action == CloneDo::send_drained ? SMIG_WIRE_DRAINED
                                                                      : SMIG_WIRE_RELEASED,
                                    asks ? encode(alive) : encode(released));
            } else {
                time_.after(0, [this, self] { feed(*self, clone_event::Lost{}); });
            }
            return;
        }
        case CloneDo::disconnect:
            if (clone.control) clone.control->close(1);
            clone.control.reset();
            return;
        case CloneDo::release:
            time_.after(1 + time_.pick(20), [this, self] {
                if (!self->alive) return;
                if (time_.chance(faults_.device_fails))
                    return feed(*self, clone_event::ReleaseFailed{"release"});
                guest_on_clone_ = true;
                say("the guest runs on the clone");
                check();
                for (const auto& [page, contents] : owed_) missing_.insert(page);
                if (!missing_.empty()) touch();
                feed(*self, clone_event::Released{!missing_.empty()});
            });
            return;
        case CloneDo::reset_machine:
            // The same VM boots into its landing environment, with a new nonce.
            say("the clone's machine resets");
            if (guest_on_clone_) break_rule("a running guest was reset");
            clone.alive = false;
            if (clone.control) clone.control->vanish(1);
            clone_.reset();
            receiving_ = true;
            for (std::uint8_t& byte : nonce_) byte = static_cast<std::uint8_t>(time_.pick(256));
            return;
        case CloneDo::fetch_owed:
            return fetch_owed(clone);
        case CloneDo::report:
            if (!missing_.empty()) break_rule("the move is reported as done though pages are missing");
            return;
        case CloneDo::announce:
        case CloneDo::finish:
            return;
    }
}

void World::on_clone_frame(Clone& clone, const Frame& frame) {
    if (frame.type == SMIG_WIRE_GO) {
        const auto go = decode_go(frame.payload).value();
        return feed(clone, clone_event::Go{std::to_array(go.epoch), std::to_array(go.boot_nonce)});
    }
    const auto verdict = decode_verdict(frame.payload).value();
    if (frame.type == SMIG_WIRE_VOID)
        return feed(clone,
                    clone_event::Void{std::to_array(verdict.epoch), std::to_array(verdict.boot_nonce)});
    feed(clone, clone_event::Wait{});
}

void World::lose_target_agent() {
    if (!target_ || !target_->alive || clone_ || !target_vm_up_) return;
    say("target's agent dies");
    target_->alive = false;
    target_->connection->close(1);
    // PID 1 starts it again; a new process has a new nonce.
    for (std::uint8_t& byte : nonce_) byte = static_cast<std::uint8_t>(time_.pick(256));
}

void World::lose_target_vm() {
    // A guest that runs on a machine that dies is lost with it: no protocol's business.
    if (!target_vm_up_ || guest_on_clone_) return;
    say("target's machine dies");
    target_vm_up_ = false;
    target_vm_lost_ = true;
    receiving_ = false;
    if (target_) {
        target_->alive = false;
        target_->connection->vanish(1);
    }
    if (clone_) {
        clone_->alive = false;
        if (clone_->control) clone_->control->vanish(1);
    }
}

}  // namespace smig::sim
