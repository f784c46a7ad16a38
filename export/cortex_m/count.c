/* A QEMU TCG plugin that counts executed instructions by function.

   qemu-... -plugin count.so,symbols=FILE,out=FILE; `symbols` is the output of `nm -n`; the plugin writes a line
   "count name" per function to `out`. QEMU's header is not packaged everywhere, so the required declarations are
   repeated here; see "QEMU TCG Plugins" in its documentation. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MOST 65536

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);

EXPORT int qemu_plugin_version = 1;

static struct { uint64_t address, count; char name[120]; } functions[MOST] = {{0, 0, "elsewhere"}};
static size_t known = 1;
static const char *out;

/* Count each instruction for the last function that starts at or before it. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        size_t low = 0, high = known;
        while (high - low > 1) {
            const size_t middle = (low + high) / 2;
            if (functions[middle].address <= qemu_plugin_insn_vaddr(instruction)) low = middle; else high = middle;
        }
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, QEMU_PLUGIN_INLINE_ADD_U64, &functions[low].count, 1);
    }
}

static void ended(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    FILE *file = fopen(out, "w");
    if (file == NULL) { perror(out); abort(); }
    for (size_t i = 0; i < known; ++i)
        if (functions[i].count) fprintf(file, "%llu %s\n", (unsigned long long)functions[i].count, functions[i].name);
    if (fclose(file)) { perror(out); abort(); }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    FILE *file = NULL;
    for (int i = 0; i < argc; ++i) {
        if (!strncmp(argv[i], "symbols=", 8)) file = fopen(argv[i] + 8, "r");
        if (!strncmp(argv[i], "out=", 4)) out = argv[i] + 4;
    }
    if (file == NULL || out == NULL) { fputs("count.so needs symbols=FILE and out=FILE\n", stderr); return 1; }
    char line[4096], kind;
    unsigned long long address;
    while (fgets(line, sizeof line, file) != NULL)
        if (known < MOST && sscanf(line, "%llx %c %119s", &address, &kind, functions[known].name) == 3 &&
            strchr("tTwW", kind) && functions[known].name[0] != '$')
            functions[known++].address = address;
    fclose(file);
    out = strdup(out);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
