// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/ownership.hpp"

#include "agent/base/check.hpp"

namespace smig {

namespace {

struct Row {
    smig_session_state state;
    const char* name;
    Side side;
    Owner owner;
};

constexpr Row kRows[] = {
    {SMIG_SOURCE_CHECKING, "source-checking", Side::source, Owner::source},
    {SMIG_SOURCE_LANDING, "source-landing", Side::source, Owner::source},
    {SMIG_SOURCE_PASSING, "source-passing", Side::source, Owner::source},
    {SMIG_SOURCE_STOPPING, "source-stopping", Side::source, Owner::source},
    {SMIG_SOURCE_SENDING, "source-sending", Side::source, Owner::source},
    {SMIG_SOURCE_AWAITING_READY, "source-awaiting-ready", Side::source, Owner::source},
    {SMIG_SOURCE_AWAITING_ALIVE, "source-awaiting-alive", Side::source, Owner::source},
    {SMIG_SOURCE_GIVEN, "source-given", Side::source, Owner::clone},
    {SMIG_SOURCE_OWING, "source-owing", Side::source, Owner::clone},
    {SMIG_SOURCE_FINISHED, "source-finished", Side::source, Owner::clone},
    {SMIG_SOURCE_ROLLED_BACK, "source-rolled-back", Side::source, Owner::source},
    {SMIG_TARGET_LISTENING, "target-listening", Side::target, Owner::source},
    {SMIG_TARGET_CHECKING, "target-checking", Side::target, Owner::source},
    {SMIG_TARGET_LANDED, "target-landed", Side::target, Owner::source},
    {SMIG_TARGET_LOADING, "target-loading", Side::target, Owner::source},
    {SMIG_TARGET_READY, "target-ready", Side::target, Owner::source},
    {SMIG_TARGET_JUMPING, "target-jumping", Side::target, Owner::source},
    {SMIG_TARGET_GONE_BACK, "target-gone-back", Side::target, Owner::source},
    {SMIG_CLONE_FENCED, "clone-fenced", Side::clone, Owner::source},
    {SMIG_CLONE_OWING, "clone-owing", Side::clone, Owner::clone},
    {SMIG_CLONE_RELEASED, "clone-released", Side::clone, Owner::clone},
    {SMIG_CLONE_REFUSED, "clone-refused", Side::clone, Owner::source},
};

const Row* find(smig_session_state state) {
    for (const Row& row : kRows)
        if (row.state == state) return &row;
    return nullptr;
}

const Row& row_of(smig_session_state state) {
    const Row* row = find(state);
    SMIG_CHECK(row != nullptr);
    return *row;
}

}  // namespace

Owner owner_of(smig_session_state state) {
    return row_of(state).owner;
}
Side side_of(smig_session_state state) {
    return row_of(state).side;
}

bool may_run_guest(smig_session_state state) {
    const Row& row = row_of(state);
    return (row.side == Side::source && row.owner == Owner::source) ||
           (row.side == Side::clone && row.owner == Owner::clone);
}

const char* state_name(smig_session_state state) {
    const Row* row = find(state);
    return row != nullptr ? row->name : "?";
}

std::optional<smig_session_state> state_named(std::string_view name) {
    for (const Row& row : kRows)
        if (name == row.name) return row.state;
    return std::nullopt;
}

}  // namespace smig
