/* Intel's AMX instructions in software, for a process whose processor, or whose kernel, refuses them.
 *
 * A handler of SIGILL decodes the instruction at the program counter, performs it and continues behind it. It knows the
 * instructions of AMX-TILE, AMX-INT8 and AMX-BF16 and what makes each of them illegal, as the pseudo-code of Intel's
 * Software Developer's Manual has it. Every other illegal instruction goes to the handler that was there before.
 *
 * Tiles live here, one set for each thread. The configuration of the tiles may live in the processor as well: on one
 * that has AMX, in a process that has not asked Linux for tile data, LDTILECFG, STTILECFG and TILERELEASE work, and only
 * what touches tile data traps. So the configuration is taken from the registers that the kernel has saved for the
 * signal, and is put back there with a mark, which tells whether the program has configured its tiles anew since then.
 *
 * The processor must have fused multiply-add (FMA), Linux must run it in 64 bits.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <xmmintrin.h>

enum { TILES = 8, MAX_ROWS = 16, ROW_BYTES = 64, PALETTE = 1 };
enum prefix { NO_PREFIX, PREFIX_66, PREFIX_F3, PREFIX_F2 }; /* as VEX numbers them */

/* What LDTILECFG reads and STTILECFG writes: 64 bytes. */
struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16]; /* the manual's colsb; the last eight are reserved */
    uint8_t rows[16];
};

typedef uint8_t tile[MAX_ROWS][ROW_BYTES];

/* Bytes outside of a tile's rows and row_bytes are always zero. */
static __thread struct {
    struct config config;
    tile tiles[TILES];
} state;

struct instruction {
    uint8_t opcode, prefix, reg, vvvv, rm;
    bool has_address;
    uint8_t *address; /* base + displacement */
    int64_t scaled;   /* index * scale: the distance of rows, or 0 without an index */
    int length;
};

/* --- decoding ---------------------------------------------------------------------------------------------------- */

/* The general registers in the order of their numbers. */
static const int REGISTERS[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* Reads ModRM's memory operand; returns the first byte behind it. */
static const uint8_t *decode_address(const uint8_t *code, const greg_t *registers, struct instruction *found) {
    int x = !(code[1] & 0x40) << 3, b = !(code[1] & 0x20) << 3;
    int mod = code[4] >> 6, base = code[4] & 7;
    const uint8_t *next = code + 5;
    bool has_sib = base == 4;
    if (has_sib) {
        uint8_t sib = *next++;
        int index = (sib >> 3 & 7) | x;
        base = sib & 7;
        if (index != 4) found->scaled = registers[REGISTERS[index]] * (1 << (sib >> 6));
    }
    bool has_base = !(mod == 0 && base == 5);
    int64_t displacement = 0;
    if (mod == 1) {
        displacement = (int8_t)*next++;
    } else if (mod == 2 || !has_base) {
        int32_t four_bytes;
        memcpy(&four_bytes, next, 4);
        displacement = four_bytes;
        next += 4;
    }
    if (has_base)
        displacement += registers[REGISTERS[base | b]];
    else if (!has_sib)
        displacement += (int64_t)next; /* relative to the next instruction; none of ours has an immediate operand */
    found->address = (uint8_t *)displacement;
    return next;
}

/* Reads one byte after the other, for a page may end behind any of them. */
static bool decode(const uint8_t *code, const greg_t *registers, struct instruction *found) {
    bool in_map_0f38 = code[0] == 0xC4 && (code[1] & 0x1F) == 2;
    if (!in_map_0f38 || (code[2] & 0x84)) return false; /* all of ours have W = 0 and L = 0 */
    if (!(code[1] & 0x80)) return false;                /* there is no tile 8 */
    *found = (struct instruction){.opcode = code[3], .prefix = code[2] & 3};
    found->vvvv = ~code[2] >> 3 & 15;
    if (found->opcode != 0x49 && found->opcode != 0x4B && found->opcode != 0x5C && found->opcode != 0x5E) return false;
    found->reg = code[4] >> 3 & 7;
    found->rm = code[4] & 7;
    found->has_address = code[4] >> 6 != 3;
    if (!found->has_address && !(code[1] & 0x20)) return false; /* tile 8 again */
    const uint8_t *next = found->has_address ? decode_address(code, registers, found) : code + 5;
    found->length = (int)(next - code);
    return true;
}

/* --- performing: each function returns whether the instruction is legal ----------------------------------------- */

static bool release(void) {
    memset(&state, 0, sizeof state);
    return true;
}

static bool load_config(const void *address) {
    struct config config;
    memcpy(&config, address, sizeof config);
    if (config.palette == 0) return release();
    /* Real processors continue at start_row, for an interrupted load; nobody begins there. */
    bool legal = config.palette == PALETTE && config.start_row == 0;
    for (size_t i = 0; i < sizeof config.reserved; i++) legal &= config.reserved[i] == 0;
    for (int i = 0; i < 16; i++) {
        legal &= config.rows[i] <= (i < TILES ? MAX_ROWS : 0) && config.row_bytes[i] <= (i < TILES ? ROW_BYTES : 0);
        legal &= (config.rows[i] == 0) == (config.row_bytes[i] == 0);
    }
    if (!legal) return false;
    release();
    state.config = config;
    return true;
}

/* Whole elements of four bytes can be moved and multiplied. */
static bool has_elements(int number) {
    return number < TILES && state.config.rows[number] && state.config.row_bytes[number] % 4 == 0;
}

static bool zero_tile(int number) {
    if (!state.config.rows[number]) return false;
    memset(state.tiles[number], 0, sizeof(tile));
    return true;
}

static bool load_tile(int number, const uint8_t *address, int64_t stride) {
    if (!has_elements(number)) return false;
    zero_tile(number);
    for (int row = 0; row < state.config.rows[number]; row++)
        memcpy(state.tiles[number][row], address + row * stride, state.config.row_bytes[number]);
    return true;
}

static bool store_tile(int number, uint8_t *address, int64_t stride) {
    if (!has_elements(number)) return false;
    for (int row = 0; row < state.config.rows[number]; row++)
        memcpy(address + row * stride, state.tiles[number][row], state.config.row_bytes[number]);
    return true;
}

/* Three different tiles: sum (rows, columns), left (rows, depth), right (depth, columns), of four bytes each. */
static bool can_multiply(int sum, int left, int right) {
    const struct config *config = &state.config;
    return sum != left && sum != right && left != right && has_elements(sum) && has_elements(left) &&
           has_elements(right) && config->rows[sum] == config->rows[left] &&
           config->row_bytes[sum] == config->row_bytes[right] && config->row_bytes[left] / 4 == config->rows[right];
}

static int byte_value(uint8_t byte, bool is_signed) { return is_signed ? (int8_t)byte : byte; }

/* An element of sum gets the products of four bytes; sums wrap around. */
static bool multiply_bytes(int sum, int left, int right, bool left_signed, bool right_signed) {
    if (!can_multiply(sum, left, right)) return false;
    for (int row = 0; row < state.config.rows[sum]; row++) {
        uint32_t sums[ROW_BYTES / 4];
        memcpy(sums, state.tiles[sum][row], ROW_BYTES);
        for (int k = 0; k < state.config.row_bytes[left]; k++) {
            int factor = byte_value(state.tiles[left][row][k], left_signed);
            for (int column = 0; column < ROW_BYTES / 4; column++)
                sums[column] += factor * byte_value(state.tiles[right][k / 4][4 * column + k % 4], right_signed);
        }
        memcpy(state.tiles[sum][row], sums, ROW_BYTES);
    }
    return true;
}

/* In assembly, since a compiler may exchange operands, and of several NaNs the first operand's is the result. */
static float multiply_add(float a, float b, float sum) {
    __asm__ volatile("vfmadd231ss %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}

static float add(float a, float b) {
    __asm__ volatile("vaddss %1, %0, %0" : "+x"(a) : "x"(b));
    return a;
}

static float widened(const uint8_t *bfloat16) {
    float value;
    uint8_t bytes[4] = {0, 0, bfloat16[0], bfloat16[1]};
    memcpy(&value, bytes, 4);
    return value;
}

/* An element of sum gets (even + odd): two chains of multiply-adds, of the first and of the second numbers of pairs,
 * each begun with zero and in the order of the depth. Denormals are zero, before and after each step. */
static bool multiply_bfloat16(int sum, int left, int right) {
    if (!can_multiply(sum, left, right)) return false;
    unsigned int saved = _mm_getcsr();
    _mm_setcsr(0x9FC0); /* to nearest even, denormals are zero, flush to zero, no exceptions */
    for (int row = 0; row < state.config.rows[sum]; row++) {
        float chains[2][ROW_BYTES / 4] = {{0}};
        for (int k = 0; k < state.config.row_bytes[left] / 2; k++) {
            float factor = widened(state.tiles[left][row] + 2 * k);
            const uint8_t *factors = state.tiles[right][k / 2] + 2 * (k % 2);
            for (int column = 0; column < ROW_BYTES / 4; column++) {
                float *chain = &chains[k % 2][column];
                *chain = multiply_add(factor, widened(factors + 4 * column), *chain);
            }
        }
        /* The columns behind the tile's are not computed: a chain of NaNs times zeros would leave its mark there. */
        for (int column = 0; column < state.config.row_bytes[sum] / 4; column++) {
            float value;
            uint8_t *place = state.tiles[sum][row] + 4 * column;
            memcpy(&value, place, 4);
            value = add(value, add(chains[0][column], chains[1][column]));
            memcpy(place, &value, 4);
        }
    }
    _mm_setcsr(saved);
    return true;
}

static bool perform_on_config(const struct instruction *it) {
    if (it->vvvv) return false;
    if (!it->has_address) {
        if (it->prefix == PREFIX_F2 && it->rm == 0) return zero_tile(it->reg);
        return it->prefix == NO_PREFIX && it->reg == 0 && it->rm == 0 && release();
    }
    if (it->reg != 0 || it->prefix > PREFIX_66) return false;
    uint8_t *address = it->address + it->scaled;
    if (it->prefix == NO_PREFIX) return load_config(address);
    memcpy(address, &state.config, sizeof state.config);
    return true;
}

static bool perform_move(const struct instruction *it) {
    if (it->vvvv || !it->has_address || it->rm != 4 || it->prefix == NO_PREFIX) return false; /* rm = 4: has a SIB */
    if (it->prefix == PREFIX_F3) return store_tile(it->reg, it->address, it->scaled);
    return load_tile(it->reg, it->address, it->scaled);
}

static bool perform(const struct instruction *it) {
    if (it->opcode == 0x49) return perform_on_config(it);
    if (it->opcode == 0x4B) return perform_move(it);
    if (it->has_address) return false;
    if (it->opcode == 0x5C) return it->prefix == PREFIX_F3 && multiply_bfloat16(it->reg, it->rm, it->vvvv);
    bool left_signed = it->prefix == PREFIX_F3 || it->prefix == PREFIX_F2;
    bool right_signed = it->prefix == PREFIX_66 || it->prefix == PREFIX_F2;
    return multiply_bytes(it->reg, it->rm, it->vvvv, left_signed, right_signed);
}

/* --- the processor's own configuration, in the registers saved for the signal (the layout of XSAVE) -------------- */

enum { CONFIG_COMPONENT = 17, LEAF = 0xD, MAGIC_AT = 464, SAVED_AT = 472, USED_AT = 512, MAGIC = 0x46505853 };
enum { MARK = 255 }; /* in start_row: the program has not configured its tiles since the last trap */

static unsigned int config_at; /* the configuration's place in the layout */

/* Returns the word whose bit CONFIG_COMPONENT tells that the configuration is not all zeros, or NULL without AMX. */
static uint64_t *used_components(uint8_t *area) {
    uint32_t magic;
    uint64_t saved;
    memcpy(&magic, area + MAGIC_AT, sizeof magic);
    memcpy(&saved, area + SAVED_AT, sizeof saved);
    return magic == MAGIC && (saved >> CONFIG_COMPONENT & 1) ? (uint64_t *)(area + USED_AT) : NULL;
}

static bool take_config(uint8_t *area) {
    uint64_t *used = used_components(area);
    if (!used) return true;
    struct config *config = (struct config *)(area + config_at);
    if (!(*used >> CONFIG_COMPONENT & 1)) return release();
    return config->start_row == MARK || load_config(config);
}

static void put_config(uint8_t *area) {
    uint64_t *used = used_components(area);
    if (!used) return;
    *used &= ~(1ULL << CONFIG_COMPONENT);
    if (!state.config.palette) return;
    *used |= 1ULL << CONFIG_COMPONENT;
    struct config marked = state.config;
    marked.start_row = MARK;
    memcpy(area + config_at, &marked, sizeof marked);
}

/* --- the handler ------------------------------------------------------------------------------------------------- */

static struct sigaction previous;
static atomic_long executed;

static void pass_on(int signal_number, siginfo_t *information, void *context) {
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal_number, information, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal_number);
    } else { /* the signal comes again when this handler has returned, and ends the process */
        sigaction(signal_number, &previous, NULL);
        raise(signal_number);
    }
}

static void handle(int signal_number, siginfo_t *information, void *context) {
    mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
    uint8_t *area = (uint8_t *)machine->fpregs;
    struct instruction found;
    bool is_fault = information->si_code > 0; /* and not sent by a process */
    if (!is_fault || !decode((const uint8_t *)machine->gregs[REG_RIP], machine->gregs, &found) || !take_config(area) ||
        !perform(&found)) {
        pass_on(signal_number, information, context);
        return;
    }
    put_config(area);
    machine->gregs[REG_RIP] += found.length;
    executed++;
}

/* Returns 0, or -1 if the system refuses. A second call changes nothing. */
int amx_install(void) {
    static bool installed;
    if (installed) return 0;
    unsigned int size, flags, unused;
    __cpuid_count(LEAF, CONFIG_COMPONENT, size, config_at, flags, unused);
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    installed = sigaction(SIGILL, &action, &previous) == 0;
    return installed ? 0 : -1;
}

/* Returns how many instructions have been performed here, in all threads. */
long amx_executed(void) { return executed; }
