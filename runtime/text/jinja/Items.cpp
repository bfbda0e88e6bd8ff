//===- Items.cpp - What values have in them -------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Methods.h"
#include "Operations.h"

#include <algorithm>

using namespace kvrm::jinja;

std::vector<Value> kvrm::jinja::itemsOf(Budget &budget, const Value &value) {
  std::vector<Value> items;
  if (value.isUndefined())
    return items;
  if (List *list = value.list()) {
    auto first = list->items.begin();
    if (list->kind == List::Iterator) {
      first += static_cast<std::ptrdiff_t>(list->taken);
      list->taken = list->items.size();
    }
    budget.charge(itemUnits, static_cast<size_t>(list->items.end() - first));
    items.assign(first, list->items.end());
  } else if (const Dict *dict = value.dict()) {
    budget.charge(itemUnits, dict->entries.size());
    for (const auto &entry : dict->entries)
      items.emplace_back(entry.first);
  } else if (const Text *text = value.text()) {
    budget.charge(itemUnits, text->size());
    std::vector<size_t> starts = characterStarts(text->bytes());
    for (size_t i = 0; i + 1 < starts.size(); ++i)
      items.emplace_back(text->part(starts[i], starts[i + 1] - starts[i]));
  } else {
    fail(0, "a ", value.typeName(), " cannot be gone through");
  }
  return items;
}

int64_t kvrm::jinja::lengthOf(const Value &value) {
  if (value.isUndefined())
    return 0;
  if (const Text *text = value.text())
    return static_cast<int64_t>(characterStarts(text->bytes()).size()) - 1;
  if (const Dict *dict = value.dict())
    return static_cast<int64_t>(dict->entries.size());
  if (const List *list = value.list(); list && list->kind != List::Iterator)
    return static_cast<int64_t>(list->items.size());
  fail(0, "a ",
       value.list() ? "list that is computed as it goes" : value.typeName(),
       " has no length");
}

static Value loopAttribute(const LoopState &loop, std::string_view name) {
  size_t index = loop.index;
  size_t count = loop.items.size();
  auto number = [](size_t value) { return Value(static_cast<int64_t>(value)); };
  if (name == "index")
    return number(index + 1);
  if (name == "index0")
    return number(index);
  if (name == "revindex")
    return number(count - index);
  if (name == "revindex0")
    return number(count - index - 1);
  if (name == "first")
    return Value(index == 0);
  if (name == "last")
    return Value(index + 1 == count);
  if (name == "length")
    return number(count);
  if (name == "depth")
    return Value(int64_t(loop.depth));
  if (name == "depth0")
    return Value(int64_t(loop.depth - 1));
  if (name == "previtem")
    return index > 0 ? loop.items[index - 1] : Value(Undefined{"previtem"});
  if (name == "nextitem")
    return index + 1 < count ? loop.items[index + 1]
                             : Value(Undefined{"nextitem"});
  fail(0, "'loop.", name, "' is not done here");
}

/// The entry of a dict or a namespace; null if there is none.
static const Value *entryOf(Budget &budget, const Value &value,
                            std::string_view name) {
  if (const Dict *dict = value.dict()) {
    budget.charge(dict->entries.size());
    return dict->find(name);
  }
  if (const Namespace *space = value.space()) {
    budget.charge(space->entries.size());
    return space->find(name);
  }
  return nullptr;
}

Value kvrm::jinja::attributeOf(Budget &budget, const Value &value,
                               std::string_view name) {
  if (const Undefined *undefined = value.as<Undefined>())
    fail(0, "'", undefined->name, "' is undefined, and has no '", name, "'");
  if (const LoopState *loop = value.loop())
    return loopAttribute(*loop, name);
  if (isMethodOf(value, name))
    fail(0, "'", name, "', which is a method of a ", value.typeName(),
         ", is called nowhere; an entry is value['", name, "']");
  const Value *entry = entryOf(budget, value, name);
  return entry ? *entry : Value(Undefined{name});
}

/// Where `index` is in a sequence of `count`; none if it is outside.
static std::optional<size_t> placeOf(int64_t index, size_t count) {
  auto end = static_cast<int64_t>(count);
  if (index < -end || index >= end)
    return std::nullopt;
  return static_cast<size_t>(index < 0 ? index + end : index);
}

Value kvrm::jinja::itemOf(Budget &budget, const Value &value,
                          const Value &key) {
  if (const Text *name = key.text(); name && !value.list() && !value.text()) {
    if (value.isUndefined() || value.loop())
      return attributeOf(budget, value, name->bytes());
    const Value *entry = entryOf(budget, value, name->bytes());
    return entry ? *entry : Value(Undefined{"an entry of a dict"});
  }
  std::optional<int64_t> index = key.integer();
  if (const List *list = value.list();
      list && index && list->kind <= List::Range)
    if (std::optional<size_t> place = placeOf(*index, list->items.size()))
      return list->items[*place];
  if (const Text *text = value.text(); text && index) {
    budget.charge(text->size());
    std::vector<size_t> starts = characterStarts(text->bytes());
    if (std::optional<size_t> place = placeOf(*index, starts.size() - 1))
      return Value(
          text->part(starts[*place], starts[*place + 1] - starts[*place]));
  }
  if (value.isUndefined())
    return attributeOf(budget, value, "an item");
  return Value(Undefined{"an item"});
}

/// The places of a slice of a sequence of `count`, as Python has them.
static std::vector<size_t> slicePlaces(Budget &budget,
                                       std::span<const Value *const, 3> bounds,
                                       size_t count) {
  auto boundOf = [&](const Value *bound) -> std::optional<int64_t> {
    if (!bound || bound->isNone())
      return std::nullopt;
    return expectInteger(*bound, "a slice");
  };
  int64_t step = boundOf(bounds[2]).value_or(1);
  if (step == 0)
    fail(0, "the step of a slice is 0");
  auto end = static_cast<int64_t>(count);
  // Of what goes back, -1 is in front of the first.
  int64_t low = step < 0 ? -1 : 0;
  int64_t high = step < 0 ? end - 1 : end;
  auto clamped = [&](const Value *bound, int64_t otherwise) {
    std::optional<int64_t> at = boundOf(bound);
    if (!at)
      return otherwise;
    if (*at < 0) // cannot overflow: end is not negative
      *at += end;
    return std::clamp(*at, low, std::max(low, high));
  };
  int64_t begin = clamped(bounds[0], step < 0 ? high : low);
  int64_t stop = clamped(bounds[1], step < 0 ? low : high);
  std::vector<size_t> places;
  budget.charge(itemUnits, count);
  while (step < 0 ? begin > stop : begin < stop) {
    places.push_back(static_cast<size_t>(begin));
    if (__builtin_add_overflow(begin, step, &begin))
      break;
  }
  return places;
}

Value kvrm::jinja::sliceOf(Budget &budget, const Value &value,
                           std::span<const Value *const, 3> bounds) {
  if (const Text *text = value.text()) {
    std::vector<size_t> starts = characterStarts(text->bytes());
    Text out;
    for (size_t place : slicePlaces(budget, bounds, starts.size() - 1))
      out.append(text->part(starts[place], starts[place + 1] - starts[place]));
    return Value(std::move(out));
  }
  const List *list = value.list();
  if (value.isUndefined())
    return attributeOf(budget, value, "a slice");
  if (!list || list->kind > List::Range)
    fail(0, "a ", value.typeName(), " has no slices");
  std::vector<Value> items;
  for (size_t place : slicePlaces(budget, bounds, list->items.size()))
    items.push_back(list->items[place]);
  return Value::ofList(std::move(items), list->kind);
}
