// Written by .venv/bin/python tests/typescript.py

export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[];

export type Database = {
  public: {
    Tables: {
      call_sessions: {
        Row: {
          /** When the row was inserted. */
          created_at: string;
          /** Metered call: tokens due, written by the engine when the call turns or ends. Other call: its cost, as the client reports it. */
          credit_cost: number;
          /** When the call ended; NULL while it is running. */
          end_time: string | null;
          /** Identifier of the call. */
          id: string;
          /** What the call carries: video or voice-only. */
          mode: "video" | "voice-only";
          /** Room identifier, chosen by the embedding page. */
          room_id: string;
          /** When the call began, by the client's clock; for a call of start_call() by the server's. */
          start_time: string;
          /** When the row last changed; a trigger sets it. */
          updated_at: string;
          /** Whether a TURN relay carried the media. */
          used_turn: boolean;
          /** Who pays: an account, anonymous_<n>, or NULL. No foreign key: the account need not exist. */
          user_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          created_at?: string;
          credit_cost?: number;
          end_time?: string | null;
          id?: string;
          mode: "video" | "voice-only";
          room_id: string;
          start_time?: string;
          updated_at?: string;
          used_turn?: boolean;
          user_id?: string | null;
        };
        Update: {
          created_at?: string;
          credit_cost?: number;
          end_time?: string | null;
          id?: string;
          mode?: "video" | "voice-only";
          room_id?: string;
          start_time?: string;
          updated_at?: string;
          used_turn?: boolean;
          user_id?: string | null;
        };
        Relationships: [];
      };
      token_ledger: {
        Row: {
          /** Balance after the change. */
          balance: number;
          /** When the balance changed. */
          created_at: string;
          /** Identifier of the row; it grows with each row of an account. 0: an opening that backfill() wrote. */
          id: number;
          /** Idempotency key of a top_up or refund, which is credited once for each key. */
          key: string | null;
          /** opening or closing (of the account); charge, refund, top_up; direct (any other change); carried (sum of trimmed rows); correction (what the ledger lacked, by rebuild_ledger()). */
          kind: string;
          /** anon or authenticated if a page wrote the balance by itself; NULL for other rows. */
          role: string | null;
          /** The call that was charged or refunded; NULL for other rows. */
          session_id: string | null;
          /** Tokens added to the balance; negative if they were taken. */
          tokens: number;
          /** The account; it may have been deleted since. */
          user_id: string;
        };
        ComputedFields: never;
        Insert: {
          balance: number;
          created_at?: string;
          id?: never;
          key?: string | null;
          kind: string;
          role?: string | null;
          session_id?: string | null;
          tokens: number;
          user_id: string;
        };
        Update: {
          balance?: number;
          created_at?: string;
          id?: never;
          key?: string | null;
          kind?: string;
          role?: string | null;
          session_id?: string | null;
          tokens?: number;
          user_id?: string;
        };
        Relationships: [];
      };
      token_rates: {
        Row: {
          /** When the rate takes effect; it holds until the next rate takes effect. */
          effective_from: string;
          /** voice (a voice-only call) or video. */
          mode: "voice" | "video";
          /** Tokens for each started minute. */
          tokens_per_minute: number;
          /** Whether a TURN relay carries the media. */
          used_turn: boolean;
        };
        ComputedFields: never;
        Insert: {
          effective_from?: string;
          mode: "voice" | "video";
          tokens_per_minute: number;
          used_turn: boolean;
        };
        Update: {
          effective_from?: string;
          mode?: "voice" | "video";
          tokens_per_minute?: number;
          used_turn?: boolean;
        };
        Relationships: [];
      };
      token_usage: {
        Row: {
          /** Length of the call, or of the segment, in seconds; NULL if unknown. */
          duration_seconds: number | null;
          /** Identifier of the row. */
          id: string;
          /** Mode that is priced: voice (a voice-only call) or video. */
          mode: "voice" | "video";
          /** Id of the call, as text; the call of an old row may not exist any more. */
          session_id: string;
          /** When the usage was logged. */
          timestamp: string;
          /** Tokens that the call, or a segment of it, cost. */
          tokens_used: number;
          /** Whether the TURN rate applied. */
          used_turn: boolean;
          /** The account that paid. */
          user_id: string;
        };
        ComputedFields: never;
        Insert: {
          duration_seconds?: number | null;
          id?: string;
          mode: "voice" | "video";
          session_id: string;
          timestamp?: string;
          tokens_used: number;
          used_turn: boolean;
          user_id: string;
        };
        Update: {
          duration_seconds?: number | null;
          id?: string;
          mode?: "voice" | "video";
          session_id?: string;
          timestamp?: string;
          tokens_used?: number;
          used_turn?: boolean;
          user_id?: string;
        };
        Relationships: [
          {
            foreignKeyName: "fk_token_usage_user_id";
            columns: ["user_id"];
            isOneToOne: false;
            referencedRelation: "user_accounts";
            referencedColumns: ["user_id"];
          },
          {
            foreignKeyName: "fk_token_usage_user_id";
            columns: ["user_id"];
            isOneToOne: false;
            referencedRelation: "user_token_summary";
            referencedColumns: ["user_id"];
          },
        ];
      };
      user_accounts: {
        Row: {
          /** When the account was opened. */
          created_at: string;
          /** Email address of the user. */
          email: string | null;
          /** Plan of the user: free, pro or enterprise. */
          subscription_tier: "free" | "pro" | "enterprise";
          /** Tokens left to spend. */
          tokens_remaining: number;
          /** When the row last changed; a trigger sets it. */
          updated_at: string;
          /** The user who owns the account. */
          user_id: string;
        };
        ComputedFields: never;
        Insert: {
          created_at?: string;
          email?: string | null;
          subscription_tier?: "free" | "pro" | "enterprise";
          tokens_remaining?: number;
          updated_at?: string;
          user_id: string;
        };
        Update: {
          created_at?: string;
          email?: string | null;
          subscription_tier?: "free" | "pro" | "enterprise";
          tokens_remaining?: number;
          updated_at?: string;
          user_id?: string;
        };
        Relationships: [];
      };
      user_presence: {
        Row: {
          /** The host, and the conflict target of the clients' upserts. */
          host_id: string;
          /** Identifier of the row. */
          id: string;
          /** Whether the host takes calls. */
          is_available: boolean;
          /** Room in which a caller meets the host. */
          room_id: string;
          /** Secret that opens the room. */
          room_token: string | null;
          /** When the host was last heard of, by the server's clock; a trigger keeps it. */
          updated_at: string;
        };
        ComputedFields: never;
        Insert: {
          host_id: string;
          id?: string;
          is_available?: boolean;
          room_id: string;
          room_token?: string | null;
          updated_at?: string;
        };
        Update: {
          host_id?: string;
          id?: string;
          is_available?: boolean;
          room_id?: string;
          room_token?: string | null;
          updated_at?: string;
        };
        Relationships: [];
      };
    };
    Views: {
      active_calls: {
        Row: {
          /** How long the call has been running; NULL if start_time is infinite. */
          duration: string | null;
          /** Identifier of the call. */
          id: string;
          /** video or voice-only. */
          mode: "video" | "voice-only";
          /** Room identifier. */
          room_id: string;
          /** When the call began. */
          start_time: string;
          /** Whether a TURN relay carries the media. */
          used_turn: boolean;
        };
        ComputedFields: never;
        Insert: {
          duration?: never;
          id?: string | null;
          mode?: "video" | "voice-only" | null;
          room_id?: string | null;
          start_time?: string | null;
          used_turn?: boolean | null;
        };
        Update: {
          duration?: never;
          id?: string | null;
          mode?: "video" | "voice-only" | null;
          room_id?: string | null;
          start_time?: string | null;
          used_turn?: boolean | null;
        };
        Relationships: [];
      };
      daily_billing_summary: {
        Row: {
          /** Mean length in minutes of the calls that ended; NULL if none did. */
          avg_duration_minutes: number | null;
          /** UTC day on which the calls began. */
          call_date: string;
          /** Calls that began on that day. */
          total_calls: number;
          /** Sum of credit_cost. */
          total_credits: number;
          /** Calls that a TURN relay carried. */
          turn_calls: number;
          /** Video calls. */
          video_calls: number;
          /** Voice-only calls. */
          voice_calls: number;
        };
        ComputedFields: never;
        Relationships: [];
      };
      daily_token_usage: {
        Row: {
          /** Mean of tokens_used. */
          avg_tokens_per_session: number;
          /** voice or video. */
          mode: "voice" | "video";
          /** Rows of token_usage. */
          session_count: number;
          /** Sum of the lengths in minutes; an unknown length counts as 0. */
          total_minutes: number;
          /** Sum of tokens_used. */
          total_tokens: number;
          /** UTC day on which the usage was logged. */
          usage_date: string;
          /** Whether the TURN rate applied. */
          used_turn: boolean;
        };
        ComputedFields: never;
        Relationships: [];
      };
      user_token_summary: {
        Row: {
          /** When the account was opened. */
          account_created: string;
          /** When the account last used tokens; NULL without usage. */
          last_usage: string | null;
          /** free, pro or enterprise. */
          subscription_tier: "free" | "pro" | "enterprise";
          /** Tokens left to spend. */
          tokens_remaining: number;
          /** Rows of token_usage of the account; 0 without usage. */
          total_sessions: number;
          /** Sum of tokens_used of the account; 0 without usage. */
          total_tokens_used: number;
          /** The account. */
          user_id: string;
        };
        ComputedFields: never;
        Relationships: [];
      };
    };
    Functions: {
      burn_calls: {
        Args: { max_calls?: number };
        Returns: {
          session_id: string;
          status: "ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown";
          charged: number;
          shortfall: number;
        }[];
      };
      call_quote: {
        Args: { user_id: string | null; mode: "video" | "voice-only" | "voice"; used_turn?: boolean };
        Returns: {
          status: "ok" | "short" | "not_billed" | "unknown";
          tokens_per_minute: number;
          rate_from: string;
          balance: number | null;
          minutes_left: number | null;
        }[];
      };
      end_call: {
        Args: { session_id: string };
        Returns: {
          session_id: string;
          status: "ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown";
          charged: number;
          shortfall: number;
          balance: number | null;
          minutes_billed: number | null;
          minutes_left: number | null;
          credit_cost: number | null;
        }[];
      };
      explain_call: {
        Args: { session_id: string };
        Returns: {
          segment: number;
          mode: "video" | "voice";
          used_turn: boolean;
          first_minute: number;
          minutes: number;
          tokens_per_minute: number;
          rate_from: string;
          due: number;
          charged: number;
          shortfall: number;
        }[];
      };
      host_presence: {
        Args: { host_id: string; stale_after?: string };
        Returns: { is_available: boolean; room_id: string; updated_at: string }[];
      };
      open_account: {
        Args: Record<PropertyKey, never>;
        Returns: { user_id: string; status: "ok" | "known" | "closed"; balance: number | null }[];
      };
      page_billing: { Args: Record<PropertyKey, never>; Returns: "trusted" | "metered" };
      reap_stale_calls: {
        Args: { not_seen_for?: string; max_calls?: number; pages_not_seen_for?: string };
        Returns: {
          session_id: string;
          status: "ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown";
          charged: number;
          shortfall: number;
          end_time: string;
        }[];
      };
      refund_call: {
        Args: { session_id: string; tokens: number; key: string };
        Returns: {
          session_id: string;
          tokens: number;
          key: string;
          status: "ok" | "known" | "unknown";
          balance: number | null;
        }[];
      };
      set_call_turn: {
        Args: { session_id: string; used_turn: boolean };
        Returns: {
          session_id: string;
          status: "ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown";
          charged: number;
          shortfall: number;
          balance: number | null;
          minutes_billed: number | null;
          minutes_left: number | null;
          credit_cost: number | null;
        }[];
      };
      settle_calls: {
        Args: { max_calls?: number };
        Returns: {
          session_id: string;
          status: "ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown";
          charged: number;
          shortfall: number;
        }[];
      };
      start_call: {
        Args: {
          user_id: string | null;
          room_id: string;
          mode: "video" | "voice-only" | "voice";
          used_turn?: boolean;
          client_key?: string | null;
        };
        Returns: {
          session_id: string;
          status: "ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown";
          charged: number;
          shortfall: number;
          balance: number | null;
          minutes_billed: number | null;
          minutes_left: number | null;
          credit_cost: number | null;
        }[];
      };
      tick_call: {
        Args: { session_id: string };
        Returns: {
          session_id: string;
          status: "ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown";
          charged: number;
          shortfall: number;
          balance: number | null;
          minutes_billed: number | null;
          minutes_left: number | null;
          credit_cost: number | null;
        }[];
      };
      top_up: {
        Args: { user_id: string; tokens: number; key: string };
        Returns: { user_id: string; tokens: number; key: string; status: "ok" | "known"; balance: number }[];
      };
    };
    Enums: {
      [_ in never]: never;
    };
    CompositeTypes: {
      [_ in never]: never;
    };
  };
};

type DatabaseWithoutInternals = Omit<Database, "__InternalSupabase">;

type DefaultSchema = DatabaseWithoutInternals[Extract<keyof Database, "public">];

export type Tables<
  DefaultSchemaTableNameOrOptions extends
    keyof (DefaultSchema["Tables"] & DefaultSchema["Views"]) | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
        DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
      DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])[TableName] extends {
      Row: infer R;
    }
    ? R
    : never
  : DefaultSchemaTableNameOrOptions extends keyof (DefaultSchema["Tables"] & DefaultSchema["Views"])
    ? (DefaultSchema["Tables"] & DefaultSchema["Views"])[DefaultSchemaTableNameOrOptions] extends {
        Row: infer R;
      }
      ? R
      : never
    : never;

export type TablesInsert<
  DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"] | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Insert: infer I;
    }
    ? I
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Insert: infer I;
      }
      ? I
      : never
    : never;

export type TablesUpdate<
  DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"] | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Update: infer U;
    }
    ? U
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Update: infer U;
      }
      ? U
      : never
    : never;
