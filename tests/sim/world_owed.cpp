// SPDX-License-Identifier: Apache-2.0
// The owed phase of a World: a guest that runs on the clone and waits for pages, the clone's process that
// fetches them, and whoever serves them on the source.
#include <algorithm>

#include "agent/wire/codec.hpp"
#include "agent/wire/owed_codec.hpp"
#include "tests/sim/world.hpp"
#include "tests/sim/world_parts.hpp"

namespace smig::sim {

namespace {

constexpr std::size_t kMostPayload = 1 << 16;

}  // namespace

std::shared_ptr<World::Attempt> World::attempt_of(const Clone& clone) const {
    std::shared_ptr<Attempt> attempt;
    for (const auto& one : attempts_)
        if (one->machine.epoch() == clone.epoch) attempt = one;
    return attempt;
}

void World::begin_serving(Attempt& attempt) {
    attempt.owed_index = std::make_unique<OwedIndex>();
    for (const auto& [page, contents] : owed_) {
        const smig_owed_page one{page, page * 4096, 0, 0, 1, 1};
        attempt.owed_index->add(std::span(&one, 1));
    }
    attempt.owed_index->seal();
    attempt.owed = std::make_unique<OwedDispatch>(
        *attempt.owed_index,
        OwedRules{time_.chance(0.5) ? all_speculation() : SpeculationRules{},
                  time_.chance(0.5) ? SMIG_PUSH_OUTWARD : SMIG_PUSH_SEQUENTIAL, false},
        PushWindow(0, 0));
    attempt.owed->begin(0);
}

void World::serve_owed(Attempt& attempt, const SourceAction& action) {
    const auto found = attempt.callers.find(action.caller);
    if (found == attempt.callers.end()) return;
    const ConnectionPtr link = found->second;
    attempt.callers.erase(found);
    if (!attempt.owed) begin_serving(attempt);
    const smig_wire_owed_role role = action.role;
    if (attempt.owed_links.contains(role)) attempt.owed_links[role]->close(0);
    attempt.owed_links[role] = link;
    attempt.owed->connected(role, action.afresh);
    auto self = attempt.shared_from_this();
    const auto gone = [this, self, role, link] {
        link->close(0);
        if (self->owed_links[role] != link || !self->owed) return;
        self->owed->lost(role);
        self->owed_links.erase(role);
        pump(*self);
    };
    link->attach(0, {[this, self, role, link](const Frame& frame) {
                         if (self->owed_links[role] == link) on_owed_request(*self, role, frame);
                     },
                     [gone](const std::string&) { gone(); }, [gone](bool) { gone(); }});
    smig_wire_owed_ready ready{};
    ready.owed_pages = owed_.size();
    ready.order = attempt.owed->order();
    link->send(0, SMIG_WIRE_OWED_READY, encode(ready));
    pump(attempt);
}

void World::on_owed_request(Attempt& attempt, smig_wire_owed_role role, const Frame& frame) {
    if (!attempt.answers() || !source_vm_up_ || !attempt.owed) return;
    if (frame.type == SMIG_WIRE_OWED_TAKEN) {
        if (!attempt.owed->taken(role, decode_owed_taken(frame.payload).value().frames,
                                 static_cast<std::uint64_t>(time_.now()) * 1'000'000))
            break_rule("the clone acknowledges what was never sent");
    } else {
        std::array<std::uint64_t, SMIG_WIRE_MAX_FETCH> pfns{};
        const auto fetch = decode_fetch(frame.payload, pfns).value();
        attempt.owed->fetch(std::span(pfns).first(fetch.count), fetch.again);
    }
    pump(attempt);
}

void World::pump(Attempt& attempt) {
    if (!attempt.owed) return;
    for (const smig_wire_owed_role role : {SMIG_OWED_DEMAND, SMIG_OWED_PUSH})
        while (attempt.owed_links.contains(role)) {
            const auto batch = attempt.owed->next(role);
            if (!batch) break;
            send_owed(attempt, role, *batch);
        }
}

void World::send_owed(Attempt& attempt, smig_wire_owed_role role, const OwedBatch& batch) {
    Bytes payload;
    BytesWriter writer(payload);
    writer.view(encode_owed_pages_head(static_cast<std::uint32_t>(batch.pfns.size()), 0, batch.origin));
    for (const std::uint64_t page : batch.pfns) writer.number(page);
    for (const std::uint64_t page : batch.pfns) {
        const std::uint64_t read = sabotage_ == Sabotage::stale_owed_page ? owed_.begin()->first : page;
        writer.number(owed_.at(read));
        payload.resize(payload.size() + 4088);
    }
    attempt.owed->sent(role, batch, payload.size(), static_cast<std::uint64_t>(time_.now()) * 1'000'000);
    attempt.owed_links[role]->send(0, SMIG_WIRE_OWED_PAGES, payload);
}

// The guest: something of it touches a page now and then, and lets go of one.
void World::touch() {
    if (missing_.empty() || !guest_on_clone_ || !target_vm_up_) return;
    auto page = missing_.begin();
    std::advance(page, time_.pick(static_cast<std::int64_t>(missing_.size())));
    if (!waited_.contains(*page) && time_.chance(faults_.guest_frees)) {
        missing_.erase(page);
    } else if (waited_.insert(*page).second) {
        announced_.push_back(*page);
        if (clone_ && clone_->owed)
            perform(*clone_, clone_->owed->faults(std::exchange(announced_, {}), time_.now()));
    }
    time_.after(1 + time_.pick(400), [this] { touch(); });
}

void World::fetch_owed(Clone& clone) {
    if (sabotage_ == Sabotage::drained_early) {
        auto self = clone.shared_from_this();
        time_.after(1, [this, self] { feed(*self, clone_event::Drained{}); });
        return;
    }
    clone.owed = std::make_unique<OwedMachine>(OwedLimits{});
    perform(clone, clone.owed->begin(time_.now()));
    watch_owed(clone);
}

// A tick whenever it is due, while this process lives.
void World::watch_owed(Clone& clone) {
    if (!clone.owed) return;
    const std::int64_t delay = std::max<std::int64_t>(1, clone.owed->deadline_ms() - time_.now());
    time_.after(delay, [this, self = clone.shared_from_this(), process = clone.process] {
        if (!self->alive || !self->owed || self->process != process) return;
        perform(*self, self->owed->tick(time_.now()));
        watch_owed(*self);
    });
}

void World::end_owed_phase(Clone& clone) {
    if (!clone.owed || !clone.owed->over()) return;
    for (auto& [role, link] : clone.owed_links) link->close(1);
    clone.owed_links.clear();
    clone.owed.reset();
    feed(clone, clone_event::Drained{});
}

void World::perform(Clone& clone, const OwedActions& actions) {
    for (const OwedAction& action : actions)
        if (clone.owed) perform(clone, action);
    end_owed_phase(clone);
}

void World::perform(Clone& clone, const OwedAction& action) {
    const auto send = [&](smig_wire_type type, const Bytes& payload) {
        if (clone.owed_links.contains(action.role)) clone.owed_links[action.role]->send(1, type, payload);
    };
    switch (action.what) {
        case OwedDo::connect:
            return connect_owed(clone, action.role);
        case OwedDo::send_hello: {
            smig_wire_owed_hello hello{};
            std::ranges::copy(clone.epoch, hello.epoch);
            std::ranges::copy(clone.boot_nonce, hello.boot_nonce);
            hello.role = action.role;
            hello.flags = action.afresh ? SMIG_WIRE_OWED_AFRESH : 0;
            return send(SMIG_WIRE_OWED_HELLO, encode(hello));
        }
        case OwedDo::send_fetch:
            return send(SMIG_WIRE_FETCH, encode_fetch(action.pfns, action.again));
        case OwedDo::send_taken:
            return send(SMIG_WIRE_OWED_TAKEN, encode(smig_wire_owed_taken{action.frames}));
        case OwedDo::disconnect:
            if (clone.owed_links.contains(action.role)) clone.owed_links[action.role]->close(1);
            clone.owed_links.erase(action.role);
            return;
        case OwedDo::repeat: {
            const std::vector<std::uint64_t> waiting(waited_.begin(), waited_.end());
            announced_.clear();
            return perform(clone, clone.owed->faults(waiting, time_.now()));
        }
        case OwedDo::look:
            return clone.owed->left(missing_.size());
    }
}

void World::connect_owed(Clone& clone, smig_wire_owed_role role) {
    auto self = clone.shared_from_this();
    const auto attempt = attempt_of(clone);
    const int process = clone.process;
    const auto lost = [this, self, role, process] {
        if (!self->alive || !self->owed || self->process != process) return;
        perform(*self, self->owed->lost(role, time_.now()));
    };
    if (!attempt || !attempt->answers() || !source_vm_up_ || !wire_.up) {
        time_.after(wire_.up && source_vm_up_ ? 2 : 1000, lost);
        return;
    }
    const int caller = attempt->next_caller++;
    const auto link = connect(kMostPayload);
    attempt->callers[caller] = link;
    link->attach(0,
                 {[this, attempt, caller](const Frame& frame) { on_caller_frame(*attempt, caller, frame); },
                  [link](const std::string&) { link->close(0); }, [](bool) {}});
    const auto gone = [self, role, link, lost] {
        link->close(1);
        if (self->owed_links.contains(role) && self->owed_links[role] == link) lost();
    };
    link->attach(1, {[this, self, role, link](const Frame& frame) {
                         if (self->owed && self->owed_links[role] == link) on_owed_pages(*self, role, frame);
                     },
                     [gone](const std::string&) { gone(); }, [gone](bool) { gone(); }});
    clone.owed_links[role] = link;
    time_.after(2, [this, self, role, link, process] {
        if (!self->alive || !self->owed || self->process != process || self->owed_links[role] != link) return;
        perform(*self, self->owed->connected(role, time_.now()));
    });
}

void World::on_owed_pages(Clone& clone, smig_wire_owed_role role, const Frame& frame) {
    if (frame.type == SMIG_WIRE_OWED_READY) return;
    if (frame.type != SMIG_WIRE_OWED_PAGES) {
        // WAIT or VOID: for a clone that runs the guest neither may ever be said.
        return break_rule(std::string("a clone that fetches hears ") +
                          type_name(static_cast<std::uint16_t>(frame.type)));
    }
    std::array<std::uint64_t, SMIG_WIRE_MAX_PAGES> pages{};
    const auto view = decode_owed_pages(frame.payload, pages).value();
    for (std::uint32_t i = 0; i < view.count; ++i) {
        const std::uint64_t page = pages.at(i);
        if (missing_.erase(page) == 0) continue;
        waited_.erase(page);
        ++installs_[page];
        if (get_le<std::uint64_t>(view.data.data() + std::size_t{i} * 4096) != owed_.at(page))
            break_rule("an owed page came with other contents");
        if (installs_[page] > 1) break_rule("an owed page was installed twice");
    }
    perform(clone,
            clone.owed->installed(role, std::span(pages).first(view.count), missing_.size(), time_.now()));
}

// The guest runs on; a supervisor takes over.
void World::kill_clone_process() {
    if (!clone_ || !clone_->alive || !clone_->owed) return;
    Clone& clone = *clone_;
    say("the clone's process dies");
    ++clone.process;
    clone.owed.reset();
    for (auto& [role, link] : clone.owed_links) link->close(1);
    clone.owed_links.clear();
    if (clone.control) clone.control->close(1);
    clone.control.reset();
    time_.after(20 + time_.pick(300), [this, self = clone.shared_from_this()] {
        if (!self->alive) return;
        self->machine = CloneMachine::take_up(CloneAt::owing, self->epoch, self->boot_nonce, CloneLimits{});
        feed(*self, clone_event::Woke{});
    });
}

}  // namespace smig::sim
