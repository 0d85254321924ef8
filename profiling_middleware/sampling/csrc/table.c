#include "table.h"
#include "codes.h"
#include "recent.h"

#include <string.h>

#define INSTRUCTION_BYTES 2
/* As for Python's own tracebacks: a frame still being entered, and those that only help to call (3.12's around __init__). */
#define NO_FRAME (UINT32_MAX - 1)
#define MAX_CODES 8192
#define MAX_POSITIONS 32768
#define MAX_FRAMES 16384
#define MAX_STACKS 8192
#define MAX_STACK_FRAMES 262144

struct position {
    uint32_t code;
    int32_t offset;
    uint32_t frame;
};
struct known_stack {
    uint64_t hash;
    uint32_t begin, depth;
};

static struct known_code codes[MAX_CODES];
static struct position positions[MAX_POSITIONS];
static struct known_frame frames[MAX_FRAMES];
static struct known_stack stacks[MAX_STACKS];
static uint32_t stack_frames[MAX_STACK_FRAMES];
static uint32_t code_count, position_count, frame_count, stack_count, stack_frame_count;

/* -- hash indexes over those arrays: entries hold a number + 1, and are found by linear probing -------------------- */

struct index {
    uint32_t *slots;
    uint32_t mask;
};
#define INDEX(name, capacity)                                                                                          \
    static uint32_t name##_slots[2 * (capacity)];                                                                      \
    static struct index name = {name##_slots, 2 * (capacity) - 1}
INDEX(code_index, MAX_CODES);
INDEX(position_index, MAX_POSITIONS);
INDEX(frame_index, MAX_FRAMES);
INDEX(stack_index, MAX_STACKS);

static uint64_t mix(uint64_t value)
{
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull; /* MurmurHash3's finalizer */
    value ^= value >> 33;
    return value;
}

static uint64_t mix_pair(uint32_t one, uint32_t other) { return mix(((uint64_t)one << 32) | other); }

static uint32_t *first_slot(struct index *index, uint64_t hash) { return &index->slots[hash & index->mask]; }

static uint32_t *next_slot(struct index *index, uint32_t *slot)
{
    return &index->slots[(uint32_t)(slot - index->slots + 1) & index->mask];
}

/* -- codes --------------------------------------------------------------------------------------------------------- */

static uint32_t find_code(uintptr_t address)
{
    for (uint32_t *slot = first_slot(&code_index, mix(address)); *slot; slot = next_slot(&code_index, slot))
        if (codes[*slot - 1].address == address)
            return *slot - 1;
    return NO_STACK;
}

static uint32_t add_code(uintptr_t address)
{
    if (code_count == MAX_CODES)
        return NO_STACK;
    struct known_code *code = &codes[code_count];
    memset(code, 0, sizeof *code);
    code->address = address;
    if (address < SPECIAL_END)
        code->special = (enum special_frame)address;
    else {
        PyCodeObject *object = (PyCodeObject *)address;
        code->name = Py_NewRef(object->co_qualname);
        code->file = Py_NewRef(object->co_filename);
        code->first_line = object->co_firstlineno;
        code->first_offset = object->_co_firsttraceable * INSTRUCTION_BYTES;
        code_remember(address);
    }
    uint32_t *slot = first_slot(&code_index, mix(address));
    while (*slot)
        slot = next_slot(&code_index, slot);
    *slot = ++code_count;
    return code_count - 1;
}

void table_code_freed(uintptr_t address)
{
    uint32_t number = find_code(address);
    /* Its entry stays in its chain, under an address that nothing has; so do its frames, which stacks refer to. */
    if (number != NO_STACK) {
        codes[number].address = UINTPTR_MAX;
        recent_forget();
    }
}

/* -- frames -------------------------------------------------------------------------------------------------------- */

static uint32_t frame_at(uint32_t code, int32_t line)
{
    uint32_t *slot = first_slot(&frame_index, mix_pair(code, (uint32_t)line));
    for (; *slot; slot = next_slot(&frame_index, slot))
        if (frames[*slot - 1].code == code && frames[*slot - 1].line == line)
            return *slot - 1;
    if (frame_count == MAX_FRAMES)
        return NO_STACK;
    frames[frame_count] = (struct known_frame){code, line};
    *slot = ++frame_count;
    return frame_count - 1;
}

static int32_t line_of(const struct known_code *code, int32_t offset)
{
    if (code->special)
        return 0;
    PyCodeObject *object = (PyCodeObject *)code->address;
    if (offset >= (int64_t)Py_SIZE(object) * INSTRUCTION_BYTES)
        return code->first_line; /* a frame that had only just been made */
    int line = PyCode_Addr2Line(object, offset);
    return line > 0 ? line : code->first_line;
}

static uint32_t frame_of(struct place place)
{
    int32_t offset = place.offset;
    uint32_t code = find_code(place.code);
    if (code == NO_STACK && (code = add_code(place.code)) == NO_STACK)
        return NO_STACK;
    if (offset < codes[code].first_offset)
        return NO_FRAME;
    uint32_t *slot = first_slot(&position_index, mix_pair(code, (uint32_t)offset));
    for (; *slot; slot = next_slot(&position_index, slot))
        if (positions[*slot - 1].code == code && positions[*slot - 1].offset == offset)
            return positions[*slot - 1].frame;
    uint32_t frame = position_count < MAX_POSITIONS ? frame_at(code, line_of(&codes[code], offset)) : NO_STACK;
    if (frame != NO_STACK) {
        positions[position_count] = (struct position){code, offset, frame};
        *slot = ++position_count;
    }
    return frame;
}

/* -- stacks -------------------------------------------------------------------------------------------------------- */

static bool all_alive(const struct record *record)
{
    /* What a thread has noted of itself is resolved before any of it is freed, unless it lies behind a record that another
     * thread has not finished. */
    bool freed = record->codes_freed != codes_freed();
    for (uint32_t number = 0; number < record->depth; number++) {
        uintptr_t code = record->places[number].code;
        if (code >= SPECIAL_END && ((freed && code_freed_since(code, record->codes_freed)) || !code_is_alive(code)))
            return false;
    }
    return true;
}

static uint32_t find_stack(const struct record *record, bool *lost)
{
    uint32_t depth = 0, *path = &stack_frames[stack_frame_count];
    *lost = !all_alive(record);
    if (*lost || stack_count == MAX_STACKS || stack_frame_count + record->depth >= MAX_STACK_FRAMES)
        return NO_STACK;
    for (uint32_t number = 0; number < record->depth; number++) {
        uint32_t frame = frame_of(record->places[number]);
        if (frame == NO_STACK)
            return NO_STACK;
        if (frame != NO_FRAME)
            path[depth++] = frame;
    }
    if (depth == 0 && (path[depth++] = frame_of((struct place){SPECIAL_NO_PYTHON, 0})) == NO_STACK)
        return NO_STACK;
    uint64_t hash = depth;
    for (uint32_t number = 0; number < depth; number++)
        hash = mix(hash ^ path[number]) + 0x9e3779b97f4a7c15ull * number;
    uint32_t *slot = first_slot(&stack_index, hash);
    for (; *slot; slot = next_slot(&stack_index, slot)) {
        const struct known_stack *stack = &stacks[*slot - 1];
        if (stack->hash == hash && stack->depth == depth &&
            memcmp(&stack_frames[stack->begin], path, depth * sizeof *path) == 0)
            return *slot - 1;
    }
    stacks[stack_count] = (struct known_stack){hash, stack_frame_count, depth};
    stack_frame_count += depth;
    *slot = ++stack_count;
    return stack_count - 1;
}

uint32_t table_stack(const struct record *record, bool *lost)
{
    uint64_t hash = recent_hash(record->places, record->depth);
    uint32_t stack;
    *lost = false;
    /* What was kept holds for as long as none of its code is freed. What was noted before one was may mean that one. */
    if (record->codes_freed == codes_freed() && recent_find(hash, record->places, record->depth, &stack))
        return stack;
    stack = find_stack(record, lost);
    if (stack != NO_STACK)
        recent_keep(hash, record->places, record->depth, stack);
    return stack;
}

bool table_crowded(void)
{
    return code_count > MAX_CODES / 4 * 3 || position_count > MAX_POSITIONS / 4 * 3 || frame_count > MAX_FRAMES / 4 * 3 ||
           stack_count > MAX_STACKS / 4 * 3 || stack_frame_count > MAX_STACK_FRAMES / 4 * 3;
}

static void clear_index(struct index *index) { memset(index->slots, 0, (index->mask + 1) * sizeof *index->slots); }

void table_clear(void)
{
    uint32_t count = code_count;
    code_count = position_count = frame_count = stack_count = stack_frame_count = 0;
    clear_index(&code_index);
    clear_index(&position_index);
    clear_index(&frame_index);
    clear_index(&stack_index);
    recent_forget();
    code_forget_all();
    for (uint32_t number = 0; number < count; number++) {
        Py_CLEAR(codes[number].name);
        Py_CLEAR(codes[number].file);
    }
}

uint32_t table_frame_count(void) { return frame_count; }
uint32_t table_stack_count(void) { return stack_count; }
const struct known_frame *table_frame(uint32_t number) { return &frames[number]; }
const struct known_code *table_code(uint32_t number) { return &codes[number]; }

const uint32_t *table_frames_of(uint32_t stack, uint32_t *depth)
{
    *depth = stacks[stack].depth;
    return &stack_frames[stacks[stack].begin];
}
