import { type Span as ApiSpan, ROOT_CONTEXT, SpanStatusCode, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  type SpanExporter,
  type SpanProcessor,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { version } from '../../version.ts';
import { metrics } from './metrics.ts';
import type { Span, Tracer } from './tracing.ts';

/** Spans that are not taken yet; what comes beyond is dropped, and counted. */
const MOST_WAITING = 4096;
const BATCH = 512;
/** Milliseconds: until the next batch, for an answer of the collector, and for all that is left at the end. */
const PAUSE = 1_000;
const ANSWER = 5_000;
const LAST = 1_000;

/**
 * Sends spans to a collector by OTLP 1.x over HTTP, by the packages of OpenTelemetry. Nobody waits for a collector: what it
 * does not take is dropped.
 */
export function openTracer(endpoint: string): Tracer {
  const exporter = new OTLPTraceExporter({
    url: `${endpoint.replace(/\/+$/, '')}/v1/traces`,
    timeoutMillis: ANSWER,
    concurrencyLimit: 2,
  });
  let waiting = 0;
  const counting: SpanExporter = {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        waiting -= spans.length;
        if (result.error || result.code !== 0) metrics.spansDropped({}, spans.length);
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
  };
  const batches = new BatchSpanProcessor({
    exporter: counting,
    maxQueueSize: MOST_WAITING,
    maxExportBatchSize: BATCH,
    scheduledDelayMillis: PAUSE,
    exportTimeoutMillis: 2 * ANSWER,
  });
  const bounded: SpanProcessor = {
    onStart: (span, context) => batches.onStart(span, context),
    onEnd(span) {
      if (waiting >= MOST_WAITING) return metrics.spansDropped({});
      waiting++;
      batches.onEnd(span);
    },
    forceFlush: () => batches.forceFlush(),
    shutdown: () => batches.shutdown(),
  };
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'envcas-cas', 'service.version': version }),
    spanProcessors: [bounded],
  });
  const tracer = provider.getTracer('envcas', version);

  const spanOf = (span: ApiSpan): Span => ({
    child: (step) => spanOf(tracer.startSpan(step, {}, trace.setSpan(ROOT_CONTEXT, span))),
    end(code) {
      if (code !== undefined) {
        span.setAttribute('error.type', code);
        span.setStatus({ code: SpanStatusCode.ERROR });
      }
      span.end();
    },
  });
  return {
    begin: (name, id) =>
      spanOf(
        tracer.startSpan(name, { root: true, attributes: { 'envcas.correlation_id': id } }, ROOT_CONTEXT),
      ),
    close: async () => {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, LAST);
      });
      await Promise.race([provider.shutdown().catch(() => {}), late]);
      clearTimeout(timer);
    },
  };
}
