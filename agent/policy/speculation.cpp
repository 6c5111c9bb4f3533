// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/speculation.hpp"

#include <algorithm>
#include <charconv>

namespace smig {

namespace {

struct KindRow {
    const char* name;
    unsigned threshold;  // when none is given
};

// In the order of enum smig_wire_speculation.
constexpr KindRow kKinds[] = {
    {"file-single", 1}, {"file-multi", 2}, {"anon-single", 1}, {"anon-multi", 3}, {"ppm", 2},
};
static_assert(std::size(kKinds) == SMIG_SPECULATE_NR);

constexpr unsigned kFirstWindow = 4;
constexpr unsigned kMostWindow = 32;
constexpr std::int64_t kNear = 64;  // pages between two faults of one walk
constexpr unsigned kMostThreshold = 1000;
constexpr std::size_t kOtherAreas = 4;     // of one process, the latest ones
constexpr std::size_t kPagesOfOther = 2;   // of each
constexpr std::size_t kMostFollowed = 16;  // predicted steps, one after the other

std::int64_t pages_between(std::uint64_t from, std::uint64_t to) {
    return static_cast<std::int64_t>(to / kPageBytes) - static_cast<std::int64_t>(from / kPageBytes);
}

}  // namespace

std::uint32_t SpeculationRules::mask() const {
    std::uint32_t bits = 0;
    for (std::uint32_t kind = 0; kind < SMIG_SPECULATE_NR; ++kind)
        if (thresholds.at(kind) != 0) bits |= 1u << kind;
    return bits;
}

SpeculationRules all_speculation() {
    SpeculationRules rules;
    for (std::size_t kind = 0; kind < SMIG_SPECULATE_NR; ++kind)
        rules.thresholds.at(kind) = kKinds[kind].threshold;
    return rules;
}

Result<SpeculationRules> parse_speculation(std::string_view text) {
    if (text == "none") return SpeculationRules{};
    if (text == "all") return all_speculation();
    SpeculationRules rules;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        const std::string_view word = text.substr(begin, end - begin);
        const std::size_t colon = std::min(word.find(':'), word.size());
        const auto* const kind = std::ranges::find(kKinds, word.substr(0, colon), &KindRow::name);
        unsigned threshold = kind == std::end(kKinds) ? 0 : kind->threshold;
        bool good = threshold != 0;
        if (good && colon < word.size()) {
            const auto [last, failed] =
                std::from_chars(word.data() + colon + 1, word.data() + word.size(), threshold);
            good = failed == std::errc{} && last == word.data() + word.size() && threshold >= 1 &&
                   threshold <= kMostThreshold;
        }
        if (!good)
            return Error{Remedy::refused, "no speculation \"" + std::string(word) +
                                              "\"; say none, all, or some of " +
                                              speculation_names((1u << SMIG_SPECULATE_NR) - 1) +
                                              ", each with :N if you like (how often it must have fitted)"};
        rules.thresholds.at(static_cast<std::size_t>(kind - std::begin(kKinds))) = threshold;
        begin = end + 1;
    }
    return rules;
}

std::string speculation_names(std::uint32_t mask) {
    std::string names;
    for (std::size_t kind = 0; kind < SMIG_SPECULATE_NR; ++kind)
        if ((mask >> kind & 1) != 0) names += std::string(names.empty() ? "" : ",") + kKinds[kind].name;
    return names.empty() ? "none" : names;
}

void Speculator::take(OwedPlace place) {
    if (left_->test(place) && std::ranges::find(*out_, place) == out_->end()) out_->push_back(place);
}

unsigned Speculator::faults_of_file(std::uint64_t file) {
    const auto found = std::ranges::find(file_faults_, file, &std::pair<std::uint64_t, unsigned>::first);
    if (found != file_faults_.end()) return ++found->second;
    file_faults_.emplace_back(file, 1);
    return 1;
}

// The step since the mapping's last fault.  Where predicted pages were sent, the next fault comes behind
// them: if that is the step that was expected there, the process went their way, and it counts from their
// end.
std::int64_t Speculator::learn_step(Area& area, std::uint64_t address) {
    const std::int64_t step = pages_between(index_[area.last].address, address);
    std::int64_t learned = step;
    if (area.walked_to != 0) {
        const std::int64_t behind = pages_between(area.walked_to, address);
        if (predictor_.predict(area.walked, 1) == behind) {
            area.history = area.walked;
            learned = behind;
        }
    }
    area.walked_to = 0;
    predictor_.learn(area.history, learned);
    area.history.add(learned);
    return step;
}

Speculator::Area& Speculator::note(OwedPlace place) {
    const smig_owed_page& page = index_[place];
    auto found = std::ranges::find(areas_, page.area, &Area::number);
    if (found == areas_.end()) {
        areas_.push_back({});
        found = areas_.end() - 1;
        found->number = page.area;
        found->file = page.file != 0;
        found->window = kFirstWindow;
    } else {
        const std::int64_t step = learn_step(*found, page.address);
        const bool near = step != 0 && step >= -kNear && step <= kNear;
        found->window = near ? std::min(found->window * 2, kMostWindow) : std::max(found->window / 2, 1u);
        if (near) found->down = step < 0;
    }
    found->last = place;
    ++found->faults;
    // The latest last: other_areas() looks from there.
    std::rotate(found, found + 1, areas_.end());
    return areas_.back();
}

void Speculator::neighbours(const Area& area, std::size_t most) {
    const PlaceRange range = index_.area_of(area.last);
    const std::size_t before = out_->size();
    const std::size_t end = before + std::min<std::size_t>(most, area.window);
    for (OwedPlace distance = 1; distance <= area.window && out_->size() < end; ++distance) {
        if (!area.down && area.last + distance < range.end) take(area.last + distance);
        if (area.down && area.last >= range.begin + distance) take(area.last - distance);
    }
    // A first fault has no direction yet: what lies before it may be meant as well.
    if (area.faults == 1 && area.last > range.begin && out_->size() < before + most) take(area.last - 1);
}

void Speculator::other_copies(OwedPlace place, std::size_t most) {
    const smig_owed_page& page = index_[place];
    const std::size_t end = out_->size() + most;
    for (std::uint64_t beside = 0; beside <= 1; ++beside)
        for (const OwedPlace copy : index_.copies_of(page.file, page.file_page + beside))
            if (copy != place && out_->size() < end) take(copy);
}

void Speculator::other_areas(OwedPlace place, std::size_t most) {
    const std::size_t end = out_->size() + most;
    std::size_t looked_at = 0;
    for (auto area = areas_.rbegin(); area != areas_.rend() && looked_at < kOtherAreas; ++area) {
        if (area->file || area->number == index_[place].area ||
            index_[area->last].space != index_[place].space)
            continue;
        ++looked_at;
        const PlaceRange range = index_.area_of(area->last);
        // Behind what was sent of it since its last fault.
        const std::size_t enough = std::min(out_->size() + kPagesOfOther, end);
        for (OwedPlace i = 1; i <= kMostWindow && out_->size() < enough; ++i) {
            if (!area->down && area->last + i < range.end) take(area->last + i);
            if (area->down && area->last >= range.begin + i) take(area->last - i);
        }
    }
}

void Speculator::predicted(OwedPlace place, Area& area, std::size_t most) {
    const std::size_t end = out_->size() + most;
    StepPredictor::History history = area.history;
    std::uint64_t address = index_[place].address;
    const unsigned least = rules_.thresholds[SMIG_SPECULATE_PPM];
    for (std::size_t i = 0; i < kMostFollowed && out_->size() < end; ++i) {
        const auto step = predictor_.predict(history, least);
        if (!step || *step == 0) return;
        address += static_cast<std::uint64_t>(*step) * kPageBytes;
        history.add(*step);
        area.walked_to = address;
        area.walked = history;
        if (const auto found = index_.find_in_area(place, address)) take(*found);
    }
}

void Speculator::demand(OwedPlace place, const PlaceSet& left, std::size_t most,
                        std::vector<OwedPlace>& out) {
    if (index_[place].area == 0) return;
    left_ = &left;
    out_ = &out;
    const std::size_t end = out.size() + most;
    const auto room = [&] { return end - out.size(); };
    Area& area = note(place);
    const unsigned of_file = area.file ? faults_of_file(index_[place].file) : 0;
    const auto speaks = [&](smig_wire_speculation kind, unsigned faults) {
        return rules_.on(kind) && faults >= rules_.thresholds.at(kind) && room() > 0;
    };
    if (rules_.on(SMIG_SPECULATE_PPM)) predicted(place, area, room());
    if (area.file) {
        if (speaks(SMIG_SPECULATE_FILE_SINGLE, area.faults)) neighbours(area, room());
        if (speaks(SMIG_SPECULATE_FILE_MULTI, of_file)) other_copies(place, room());
        return;
    }
    if (speaks(SMIG_SPECULATE_ANON_SINGLE, area.faults)) neighbours(area, room());
    if (speaks(SMIG_SPECULATE_ANON_MULTI, area.faults)) other_areas(place, room());
}

}  // namespace smig
