/* Prints the class, or the first output, and the time of each golden input of @@name, and whether every output byte is
   as expected. */
#include <@@name.h>

#include "golden.h"

void setup()
{
    Serial.begin(115200);
    while (!Serial)
        ;
}

void loop()
{
    static @@out_type output[@@{NAME}_OUTPUT_SIZE];@@arena
@@{reset}    for (int i = 0; i < GOLDEN_COUNT; i++) {
        const unsigned long start = micros();
        @@{name}_invoke(golden_inputs[i], output@@with_arena);
        const unsigned long took = micros() - start;
        int top = 0;
        bool right = true;
        for (int j = 0; j < @@{NAME}_OUTPUT_SIZE; j++) {
            if (output[j] > output[top])
                top = j;
            if (output[j] != golden_outputs[i][j])
                right = false;
        }
        Serial.print("golden input ");
        Serial.print(i);
#if defined(@@{NAME}_LABELS) && @@{NAME}_LABELS == @@{NAME}_OUTPUT_SIZE
        Serial.print(": class ");
        Serial.print(@@{name}_labels[top]);
#else
        Serial.print(": highest output ");
        Serial.print(top);
#endif
        Serial.print(right ? ", as expected, " : ", WRONG BYTES, ");
        Serial.print(took);
        Serial.println(" us");
    }
    delay(5000);
}
