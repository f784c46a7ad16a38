/* Kernels for Helium, the vector unit of Cortex-M55 and M85: these sections replace those of the same name in kernels.c
   if the compiler supports it. The results are bit-exact, and the declared orders are the same. */
//@ mve: base
#include <arm_mve.h>

/* requantize() of four values without its zero point; `right` is minus the shift */
__attribute__((unused)) static inline int32x4_t requantize_4(int32x4_t high, int32x4_t right)
{
    const int32x4_t away = vshrq_n_s32(vandq_s32(high, right), 31); /* -1 if both are negative */
    return vrshlq_s32(vaddq_s32(high, away), right);
}

/* Whether requantize_4() may be used for all n shifts */
__attribute__((unused)) static inline int32_t plain_shifts(const int8_t *shift, int32_t n)
{
    while (n > 0 && *shift >= 0) {
        n--;
        shift++;
    }
    return n == 0;
}
//@ rows: mve requantize clamp
/* Weights of outputs, `stride` bytes apart; up to twelve bytes after the last may be read. plain: whether
   requantize_4() may be used. */
struct rows {
    const int8_t *weights;
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t taps, stride, outputs, out_zero, low, high, plain;
};

/* One output at a time: for fewer than four, and for shifts that need 64 bits */
static void rows_times_one(const struct rows *s, const int8_t *x, int8_t *y)
{
    int32_t output, i;
    for (output = 0; output < s->outputs; output++) {
        const int8_t *weights = s->weights + output * s->stride;
        int32_t sum = s->bias[output];
        for (i = 0; i < s->taps; i += 16) {
            const mve_pred16_t rest = vctp8q((uint32_t)(s->taps - i));
            sum = vmladavaq_s8(sum, vldrbq_z_s8(x + i, rest), vldrbq_z_s8(weights + i, rest));
        }
        y[output] = clamp(requantize(sum, s->multiplier[output], s->shift[output], s->out_zero), s->low, s->high);
    }
}

/* All outputs of the inputs x, four at a time; if their number is not a multiple of four, the last four overlap the
   previous ones. */
__attribute__((noinline)) static void rows_times(const struct rows *s, const int8_t *x, int8_t *y)
{
    const int32_t blocks = s->taps >> 4, rest = s->taps & 15, stride = s->stride, outputs = s->outputs;
    const int32_t zero = s->out_zero;
    const int8_t *weights = s->weights, *shift = s->shift;
    const int32_t *bias = s->bias, *multiplier = s->multiplier;
    const int32x4_t low = vdupq_n_s32(s->low), high = vdupq_n_s32(s->high);
    const int8x16_t last = vldrbq_z_s8(x + 16 * blocks, vctp8q((uint32_t)rest));
    int32_t output;
    if (outputs < 4 || !s->plain) {
        rows_times_one(s, x, y);
        return;
    }
    for (output = 0; output < outputs; output += 4) {
        const int8_t *from = x, *w0, *w1, *w2, *w3;
        int32_t a = 0, b = 0, c = 0, d = 0;
        int32x4_t value;
        output = output + 4 <= outputs ? output : outputs - 4;
        w0 = weights + output * stride;
        w1 = w0 + stride;
        w2 = w1 + stride;
        w3 = w2 + stride;
        __asm__ volatile("wls lr, %[blocks], 2f\n"
                         "1:\n"
                         "vldrb.8 q0, [%[x]], #16\n"
                         "vldrb.8 q1, [%[w0]], #16\n"
                         "vmladava.s8 %[a], q0, q1\n"
                         "vldrb.8 q2, [%[w1]], #16\n"
                         "vmladava.s8 %[b], q0, q2\n"
                         "vldrb.8 q1, [%[w2]], #16\n"
                         "vmladava.s8 %[c], q0, q1\n"
                         "vldrb.8 q2, [%[w3]], #16\n"
                         "vmladava.s8 %[d], q0, q2\n"
                         "le lr, 1b\n"
                         "2:"
                         : [a] "+Te"(a), [b] "+Te"(b), [c] "+Te"(c), [d] "+Te"(d), [x] "+r"(from), [w0] "+r"(w0),
                           [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3)
                         : [blocks] "r"(blocks)
                         : "q0", "q1", "q2", "lr", "memory");
        if (rest) {
            a = vmladavaq_s8(a, last, vldrbq_s8(w0));
            b = vmladavaq_s8(b, last, vldrbq_s8(w1));
            c = vmladavaq_s8(c, last, vldrbq_s8(w2));
            d = vmladavaq_s8(d, last, vldrbq_s8(w3));
        }
        __asm__("vmov %q0[2], %q0[0], %1, %3\n"
                "vmov %q0[3], %q0[1], %2, %4"
                : "=&w"(value)
                : "r"(a), "r"(b), "r"(c), "r"(d));
        value = vaddq_s32(value, vldrwq_s32(bias + output));
        value = vqrdmulhq_s32(value, vldrwq_s32(multiplier + output));
        value = vaddq_n_s32(requantize_4(value, vnegq_s32(vldrbq_s32(shift + output))), zero);
        vstrbq_s32(y + output, vminq_s32(vmaxq_s32(value, low), high));
    }
}
//@ conv_2d (pixels): conv_2d_settings rows
static inline int8_t *column_fill(int8_t value, int32_t n, int8_t *to)
{
    for (; n > 0; n--)
        *to++ = value;
    return to;
}

static inline int8_t *column_copy(const int8_t *x, int32_t n, int8_t *to)
{
    for (; n >= 16; n -= 16, x += 16, to += 16)
        vstrbq_s8(to, vldrbq_s8(x));
    if (n > 0) {
        const mve_pred16_t rest = vctp8q((uint32_t)n);
        vstrbq_p_s8(to, vldrbq_z_s8(x, rest), rest);
    }
    return to + n;
}

/* One column, for the kernel at (row, column), which may be partly outside */
static void conv_2d_gather(const struct conv_2d *s, const int8_t *x, int32_t row, int32_t column, int8_t *to)
{
    const int32_t step = s->dilation_width, width = s->kernel_width, channels = s->channels;
    const int8_t zero = (int8_t)s->in_zero;
    int32_t first = 0, last = width; /* taps first to last - 1 are inside */
    int32_t i, j;
    if (column < 0)
        first = (step - 1 - column) / step;
    if (column + (width - 1) * step >= s->in_width)
        last = column < s->in_width ? (s->in_width - column + step - 1) / step : 0;
    first = first < width ? first : width;
    last = last > first ? last : first;
    for (i = 0; i < s->kernel_height; i++, row += s->dilation_height) {
        const int8_t *from = x + (row * s->in_width + column + first * step) * channels;
        if (row < 0 || row >= s->in_height) {
            to = column_fill(zero, width * channels, to);
            continue;
        }
        to = column_fill(zero, first * channels, to);
        if (step == 1) {
            to = column_copy(from, (last - first) * channels, to);
        } else {
            for (j = first; j < last; j++, from += step * channels)
                to = column_copy(from, channels, to);
        }
        to = column_fill(zero, (width - last) * channels, to);
    }
}

/* columns: room for two columns of taps as int16, of which one of int8 needs half at most, up to sixteen bytes more */
static void conv_2d(const struct conv_2d *s, const int8_t *x, int8_t *y, int16_t *columns)
{
    const int32_t taps = (s->kernel_height * s->kernel_width * s->channels + 3) & ~(int32_t)3;
    const struct rows rows = {s->weights, s->bias, s->multiplier, s->shift, taps, taps, s->outputs,
                              s->out_zero, s->low, s->high, plain_shifts(s->shift, s->outputs)};
    /* the order of the weights, within each four: 0 2 1 3 */
    const uint8x16_t order = vaddq_u8(vreinterpretq_u8_u32(vdupq_n_u32(0x03010200)),
                                      vandq_u8(vidupq_n_u8(0, 1), vdupq_n_u8(0xfc)));
    const int32_t point = s->kernel_height == 1 && s->kernel_width == 1, channels = s->channels;
    int8_t *const to = (int8_t *)columns;
    int32_t row, column, i;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++, y += s->outputs) {
            if (point) { /* from the input itself */
                const int8_t *const from = x + (row * s->stride_height * s->in_width + column * s->stride_width) * channels;
                for (i = 0; i < channels; i += 16) {
                    const uint8_t left = (uint8_t)(channels - i < 16 ? channels - i : 16);
                    const mve_pred16_t there = vcmphiq_u8(vdupq_n_u8(left), order);
                    vstrbq_s8(to + i, vldrbq_gather_offset_z_s8(from + i, order, there));
                }
            } else {
                conv_2d_gather(s, x, row * s->stride_height - s->pad_top, column * s->stride_width - s->pad_left, to);
                SETTLE();
                for (i = 0; i < taps; i += 16)
                    vstrbq_u8((uint8_t *)to + i, vldrbq_gather_offset_u8((uint8_t *)to + i, order));
            }
            rows_times(&rows, to, y);
        }
    }
}
//@ depthwise_conv_2d (channels): depthwise_conv_2d_settings mve requantize clamp
/* Sixteen outputs at a time. Their inputs are copied line by line into a ring of as many lines as the kernel needs, so y
   may be x. For kernels of one column each line is there twice, so that a column never goes back to the start. Vectors
   of four sums have outputs 0, 4, 8 and 12, or 1, 5, …, or 2, 6, …, or 3, 7, … */
struct block {
    int32x4_t bias[4], multiplier[4], right[4]; /* right is minus the shift */
    uint8x16_t from;                            /* distances of the inputs */
    int32_t output, outputs, plain;
    int32_t width, slots, tall; /* inputs of a line with its padding; lines; whether the kernel is one column */
};

static void depthwise_conv_2d_block(const struct depthwise_conv_2d *s, struct block *b)
{
    const int32_t left = s->outputs - b->output, multiplier = s->outputs / s->channels;
    uint8_t from[16];
    int32_t k;
    b->outputs = left < 16 ? left : 16;
    b->plain = plain_shifts(s->shift + b->output, b->outputs);
    for (k = 0; k < 4; k++) {
        const uint32x4_t at = vaddq_n_u32(vidupq_n_u32(0, 4), (uint32_t)k);
        const mve_pred16_t some = vctp32q((uint32_t)((b->outputs - k + 3) >> 2));
        b->bias[k] = vldrwq_gather_shifted_offset_z_s32(s->bias + b->output, at, some);
        b->multiplier[k] = vldrwq_gather_shifted_offset_z_s32(s->multiplier + b->output, at, some);
        b->right[k] = vnegq_s32(vldrbq_gather_offset_z_s32(s->shift + b->output, at, some));
    }
    for (k = 0; multiplier > 1 && k < 16; k++)
        from[k] = (uint8_t)((b->output + k) / multiplier - b->output / multiplier);
    SETTLE();
    b->from = multiplier > 1 ? vldrbq_u8(from) : vidupq_n_u8(0, 1);
}

/* Row `row` of the input, which may be outside, into its line or its two lines, between their padding */
static void depthwise_conv_2d_line(const struct depthwise_conv_2d *s, const struct block *b, const int8_t *x, int32_t row,
                                   int8_t *to)
{
    const int32_t beside = b->width - s->pad_left, channels = s->channels, again = b->tall ? 16 * b->slots * b->width : 0;
    const mve_pred16_t rest = vctp8q((uint32_t)b->outputs);
    const uint8x16_t from = b->from;
    int32_t left = beside < s->in_width ? beside : s->in_width;
    int8x16_t inputs = vdupq_n_s8((int8_t)s->in_zero);
    const int32_t inside = row >= 0 && row < s->in_height;
    x += inside ? row * s->in_width * channels + b->output * channels / s->outputs : 0;
    for (to += 16 * s->pad_left; left > 0; left--, to += 16, x += channels) {
        if (inside)
            inputs = s->outputs == channels ? vldrbq_z_s8(x, rest) : vldrbq_gather_offset_z_s8(x, from, rest);
        vstrbq_s8(to, inputs);
        if (again)
            vstrbq_s8(to + again, inputs);
    }
}

static inline int32x4_t depthwise_conv_2d_four(const struct block *b, int32_t k, int32x4_t sum, int32_t zero)
{
    return vaddq_n_s32(requantize_4(vqrdmulhq_s32(sum, b->multiplier[k]), b->right[k]), zero);
}

/* A row of the output; the kernel's first line is in `slot` of the ring */
static void depthwise_conv_2d_row(const struct depthwise_conv_2d *s, const struct block *b, const int8_t *ring,
                                  int32_t slot, int8_t *y)
{
    const int32_t outputs = s->outputs, zero = s->out_zero, stride = 16 * s->stride_width;
    /* taps by rows, or as one column */
    const int32_t beside = 16 * s->dilation_width, below = 16 * s->dilation_height * b->width;
    const int32_t step = b->tall ? below : beside, size = 16 * b->slots * b->width;
    const int32_t taps = b->tall ? s->kernel_height : s->kernel_width, rows = b->tall ? 1 : s->kernel_height;
    const int8_t *const end = ring + size, *x = ring + slot * 16 * b->width;
    const int8x16_t low = vdupq_n_s8((int8_t)s->low), high = vdupq_n_s8((int8_t)s->high);
    const mve_pred16_t rest = vctp8q((uint32_t)b->outputs);
    int32_t column, i;
    for (column = s->out_width; column > 0; column--, x += stride, y += outputs) {
        int32x4_t sum0 = b->bias[0], sum1 = b->bias[1], sum2 = b->bias[2], sum3 = b->bias[3];
        const int8_t *w = s->weights + b->output, *from = x;
        for (i = rows; i > 0; i--, from += below, from -= from < end ? 0 : size) {
            const int8_t *at = from;
            int8x16_t p, q, r;
            __asm__ volatile("dls lr, %[taps]\n"
                             "1:\n"
                             "vldrb.8 %q[p], [%[at]]\n"
                             "vldrb.8 %q[q], [%[w]]\n"
                             "add %[at], %[at], %[step]\n"
                             "add %[w], %[w], %[outputs]\n"
                             "vmullb.s8 %q[r], %q[p], %q[q]\n"
                             "vmullt.s8 %q[p], %q[p], %q[q]\n"
                             "vmovlb.s16 %q[q], %q[r]\n"
                             "vadd.i32 %q[sum0], %q[sum0], %q[q]\n"
                             "vmovlt.s16 %q[r], %q[r]\n"
                             "vadd.i32 %q[sum2], %q[sum2], %q[r]\n"
                             "vmovlb.s16 %q[q], %q[p]\n"
                             "vadd.i32 %q[sum1], %q[sum1], %q[q]\n"
                             "vmovlt.s16 %q[p], %q[p]\n"
                             "vadd.i32 %q[sum3], %q[sum3], %q[p]\n"
                             "le lr, 1b"
                             : [sum0] "+w"(sum0), [sum1] "+w"(sum1), [sum2] "+w"(sum2), [sum3] "+w"(sum3),
                               [at] "+r"(at), [w] "+r"(w), [p] "=&w"(p), [q] "=&w"(q), [r] "=&w"(r)
                             : [taps] "r"(taps), [step] "r"(step), [outputs] "r"(outputs)
                             : "lr", "memory");
        }
        if (b->plain) {
            const int16x8_t none = vdupq_n_s16(0);
            const int16x8_t even = vqmovntq_s32(vqmovnbq_s32(none, depthwise_conv_2d_four(b, 0, sum0, zero)),
                                                depthwise_conv_2d_four(b, 2, sum2, zero));
            const int16x8_t odd = vqmovntq_s32(vqmovnbq_s32(none, depthwise_conv_2d_four(b, 1, sum1, zero)),
                                               depthwise_conv_2d_four(b, 3, sum3, zero));
            const int8x16_t made = vqmovntq_s16(vqmovnbq_s16(vreinterpretq_s8_s16(none), even), odd);
            vstrbq_p_s8(y, vminq_s8(vmaxq_s8(made, low), high), rest);
        } else {
            const int32x4x4_t all = {{sum0, sum1, sum2, sum3}};
            int32_t sums[16];
            vst4q_s32(sums, all);
            SETTLE();
            for (i = 0; i < b->outputs; i++) {
                const int32_t k = b->output + i;
                y[i] = clamp(requantize(sums[i], s->multiplier[k], s->shift[k], zero), s->low, s->high);
            }
        }
    }
}

/* scratch: room for the ring */
static void depthwise_conv_2d(const struct depthwise_conv_2d *s, const int8_t *x, int8_t *y, int16_t *scratch)
{
    int8_t *const ring = (int8_t *)scratch;
    struct block b;
    int32_t row, line, i;
    b.width = (s->out_width - 1) * s->stride_width + (s->kernel_width - 1) * s->dilation_width + 1;
    b.slots = (s->kernel_height - 1) * s->dilation_height + 1;
    b.tall = s->kernel_width == 1;
    line = 16 * b.width;
    for (i = 0; i < (b.tall ? 2 : 1) * b.slots * line; i += 16)
        vstrbq_s8(ring + i, vdupq_n_s8((int8_t)s->in_zero));
    for (b.output = 0; b.output < s->outputs; b.output += 16) {
        int32_t next = 0; /* lines that were copied, those above the input included */
        depthwise_conv_2d_block(s, &b);
        for (row = 0; row < s->out_height; row++) {
            const int32_t start = row * s->stride_height;
            for (next = next > start ? next : start; next < start + b.slots; next++)
                depthwise_conv_2d_line(s, &b, x, next - s->pad_top, ring + next % b.slots * line);
            depthwise_conv_2d_row(s, &b, ring, start % b.slots, y + row * s->out_width * s->outputs + b.output);
        }
    }
}
//@ fully_connected: fully_connected_settings rows
static void fully_connected(const struct fully_connected *s, const int8_t *x, int8_t *y)
{
    const struct rows rows = {s->weights, s->bias, s->multiplier, s->shift, s->taps, (s->taps + 3) & ~(int32_t)3,
                              s->outputs, s->out_zero, s->low, s->high, plain_shifts(s->shift, s->outputs)};
    int32_t row;
    for (row = 0; row < s->rows; row++)
        rows_times(&rows, x + row * s->taps, y + row * s->outputs);
}
//@ max_pool_2d (pixels): pool mve
/* Sixteen channels at a time */
static void max_pool_2d(const struct pool *s, const int8_t *x, int8_t *y)
{
    const int8x16_t low = vdupq_n_s8((int8_t)s->low), high = vdupq_n_s8((int8_t)s->high);
    int32_t row, column, c, i, j;
    for (row = 0; row < s->out_height; row++) {
        const int32_t y0 = row * s->stride_height - s->pad_top, y1 = y0 + s->kernel_height;
        const int32_t top = y0 < 0 ? 0 : y0, bottom = y1 > s->in_height ? s->in_height : y1;
        for (column = 0; column < s->out_width; column++, y += s->channels) {
            const int32_t x0 = column * s->stride_width - s->pad_left, x1 = x0 + s->kernel_width;
            const int32_t left = x0 < 0 ? 0 : x0, right = x1 > s->in_width ? s->in_width : x1;
            const int8_t *corner = x + (top * s->in_width + left) * s->channels;
            for (c = 0; c < s->channels; c += 16) {
                const mve_pred16_t rest = vctp8q((uint32_t)(s->channels - c));
                const int8_t *line = corner + c;
                int8x16_t largest = vdupq_n_s8(-128);
                for (i = top; i < bottom; i++, line += s->in_width * s->channels) {
                    const int8_t *from = line;
                    for (j = left; j < right; j++, from += s->channels)
                        largest = vmaxq_s8(largest, vldrbq_z_s8(from, rest));
                }
                vstrbq_p_s8(y + c, vminq_s8(vmaxq_s8(largest, low), high), rest);
            }
        }
    }
}
//@ add (values): binary mve
/* Four values at a time: adjacent, or one value repeated */
static inline int32x4_t add_operand(const int8_t *x, int32_t stride, mve_pred16_t rest, int32_t zero, int32_t unit,
                                    int32_t multiplier, int32_t shift)
{
    const int32x4_t value = stride ? vldrbq_z_s32(x, rest) : vdupq_n_s32(*x);
    const int32x4_t scaled = vmulq_n_s32(vsubq_n_s32(value, zero), unit);
    return requantize_4(vqrdmulhq_n_s32(scaled, multiplier), vdupq_n_s32(-shift));
}

/* Both operands, shifted left by 20 bits, are rescaled to twice the larger of their scales. */
static void add(const struct binary *s, const int8_t *a, const int8_t *b, int8_t *y, int32_t sign)
{
    const int32_t zero = s->out_zero, low = s->low, high = s->high, stride_a = s->stride_a[3], stride_b = s->stride_b[3];
    const int32_t unit_a = (int32_t)1 << s->left_a, unit_b = sign * ((int32_t)1 << s->left_b);
    const int32_t fours = stride_a <= 1 && stride_b <= 1 && s->shift_a >= 0 && s->shift_b >= 0 && s->shift >= 0;
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = s->size[3]; fours && l > 0; l -= 4, p += 4 * stride_a, q += 4 * stride_b) {
                    const mve_pred16_t rest = vctp32q((uint32_t)l);
                    const int32x4_t u = add_operand(p, stride_a, rest, s->zero_a, unit_a, s->multiplier_a, s->shift_a);
                    const int32x4_t v = add_operand(q, stride_b, rest, s->zero_b, unit_b, s->multiplier_b, s->shift_b);
                    int32x4_t sum = vqrdmulhq_n_s32(vaddq_s32(u, v), s->multiplier);
                    sum = vaddq_n_s32(requantize_4(sum, vdupq_n_s32(-s->shift)), zero);
                    vstrbq_p_s32(y, vminq_s32(vmaxq_s32(sum, vdupq_n_s32(low)), vdupq_n_s32(high)), rest);
                    y += l < 4 ? l : 4;
                }
                for (; l > 0; l--, p += stride_a, q += stride_b) {
                    const int32_t u = requantize((*p - s->zero_a) * unit_a, s->multiplier_a, s->shift_a, 0);
                    const int32_t v = requantize((*q - s->zero_b) * unit_b, s->multiplier_b, s->shift_b, 0);
                    *y++ = clamp(requantize(u + v, s->multiplier, s->shift, zero), low, high);
                }
            }
        }
    }
}
