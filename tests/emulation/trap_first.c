/* A handler of SIGILL that steps over UD2, an illegal instruction, and gives what follows it to the handler before.
 *
 * So the emulator gets an instruction also where the processor would have performed it.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

static struct sigaction before;

static void handle(int signal_number, siginfo_t *information, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    if (code[0] == 0x0F && code[1] == 0x0B) registers[REG_RIP] += 2;
    before.sa_sigaction(signal_number, information, context);
}

int trap_first(void) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    return sigaction(SIGILL, &action, &before);
}
